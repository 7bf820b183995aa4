package rpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/matcher/backup"
	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// backupChunk is how much of a backup one message holds.
const backupChunk = 256 << 10

// Backup sends what the matcher writes. A client that does not take it is cut
// off as on every stream, and so holds nothing up.
func (s *adminServer) Backup(req *pb.BackupRequest, stream grpc.ServerStreamingServer[pb.BackupResponse]) error {
	if n := len(req.GetRecipients()); n > backup.MaxRecipients {
		return fmt.Errorf("%w: %d; at most %d are allowed", backup.ErrRecipient, n, backup.MaxRecipients)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	go func() {
		select {
		case <-s.draining:
			cancel(errDraining)
		case <-ctx.Done():
		}
	}()
	c := callOf(stream.Context())
	out := &backupSender{stream: stream, check: func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return c.check(s.authority)
	}}
	if err := s.acts.before(ctx, callOf(stream.Context()), req); err != nil {
		return err
	}
	size, err := s.matcher.BackupSize(ctx)
	if err == nil {
		err = stream.Send(&pb.BackupResponse{EstimatedBytes: int64(size)})
	}
	if err != nil {
		return err
	}
	done, err := s.matcher.Backup(ctx, out, req.GetRecipients())
	if err == nil {
		err = out.flush()
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return stream.Send(&pb.BackupResponse{Summary: &pb.BackupSummary{
		Scopes: int64(done.Scopes), Records: int64(done.Records), DamagedScopes: int64(done.Damaged), RootGeneration: int64(done.Origin.Generation),
	}})
}

// backupSender is a writer to a stream, in messages of backupChunk.
type backupSender struct {
	stream grpc.ServerStreamingServer[pb.BackupResponse]
	check  func() error // whether the caller is still welcome
	buf    []byte
}

func (b *backupSender) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), backupChunk-len(b.buf))
		b.buf = append(b.buf, p[:n]...)
		p, written = p[n:], written+n
		if len(b.buf) == backupChunk {
			if err := b.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (b *backupSender) flush() error {
	if err := b.check(); err != nil {
		return err
	}
	err := b.stream.Send(&pb.BackupResponse{Data: b.buf})
	b.buf = make([]byte, 0, backupChunk) // the sent one may still be on its way
	return err
}
