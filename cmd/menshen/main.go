// Command menshen is the Menshen server and its operator's tool.
//
//	menshen serve      run the server            menshen init     prepare a data directory
//	menshen demo       watch it work             menshen models   what the server can use
//	menshen tenants    menshen scopes   menshen credentials   menshen subjects
//	menshen enroll     menshen verify   menshen identify      from image files
//	menshen detect     find faces in files, without a server
//
// server.go is where the packages are put together. Everything that talks to a
// server does so over gRPC with an API key, the demo included; the operator's
// commands have no other way in.
//
// Exit status: 0 success, for verify and identify a match; 1 error; 2 wrong
// usage; 3 no match; 4 use the alternative.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc/experimental"

	"github.com/menshen-io/menshen/matcher/rpc"
)

func main() {
	experimental.SetDefaultBufferPool(new(rpc.WipingPool)) // where messages are put together that came in pieces
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, end := context.WithCancel(ctx)
	// After the first signal the default comes back: a second one ends the
	// process at once.
	context.AfterFunc(ctx, stop)
	c := &cli{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			c.hangUp(end)
		}
	}()
	os.Exit(c.run(ctx, os.Args[1:]))
}
