package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/menshen-io/menshen/cmd/menshen/internal/screen"
	"github.com/menshen-io/menshen/index/store"
	"github.com/menshen-io/menshen/matcher/backup"
	menshenv1 "github.com/menshen-io/menshen/proto/menshen/v1"
)

func (c *cli) backupCommand() *cobra.Command {
	req := &menshenv1.BackupRequest{}
	var out string
	cmd := &cobra.Command{
		Use:     "backup --recipient age1... --out FILE",
		GroupID: "manage",
		Short:   "Back up the records of a running server, encrypted (platform admin)",
		Long: `Back up all records of a running server into a new file: a snapshot of one moment,
sealed as the records are, and encrypted with age on the server to the recipients.
Gates go on meanwhile. age-keygen makes a recipient and its identity; keep the
identity away from the server.

Keys are not in a backup. Keep the keyring, the root key and the receipts too, the
newest of each: without them a backup is worth nothing, and with older ones a
restore is refused. A scope that is revoked later cannot be read from an earlier
backup any more.`,
		Example: `  age-keygen -o backup-identity.txt
  menshen backup --recipient age1... --out menshen-monday.backup
  menshen backup verify menshen-monday.backup --identity backup-identity.txt`,
		Args: groupArgs,
	}
	cmd.SuggestionsMinimumDistance = suggestionDistance
	cmd.Flags().StringArrayVar(&req.Recipients, "recipient", nil, "who can read the backup: age1... or an SSH public key (required, may be repeated)")
	cmd.Flags().StringVar(&out, "out", "", "the new file (required)")
	c.remote(cmd, func(ctx context.Context, conn *grpc.ClientConn, _ []string) error {
		return c.makeBackup(ctx, conn, req, out)
	})
	dial := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(req.Recipients) == 0 || out == "" {
			return usagef("%s: give --recipient and --out; see \"%s --help\"", cmd.CommandPath(), cmd.CommandPath())
		}
		if err := notThere(out); err != nil {
			return err
		}
		return dial(cmd, args)
	}
	cmd.AddCommand(c.backupVerifyCommand())
	return cmd
}

// groupArgs refuses an argument of a command that has subcommands: it was meant
// to be one.
func groupArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return groupRun(cmd, args)
}

// notThere refuses a file that exists.
func notThere(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return usagef("%s exists and is not overwritten; name another file", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// makeBackup writes the file, which has its name only when it is whole and
// durable.
func (c *cli) makeBackup(ctx context.Context, conn *grpc.ClientConn, req *menshenv1.BackupRequest, path string) error {
	f, err := backup.Create(path, nil)
	if err != nil {
		return err
	}
	stream, err := menshenv1.NewAdminServiceClient(conn).Backup(ctx, req)
	if err != nil {
		return errors.Join(err, f.Discard())
	}
	bar := screen.NewProgress(c.stderr, "backup", "bytes")
	summary, size, err := receiveBackup(stream, f, bar)
	bar.End()
	if err != nil {
		return errors.Join(err, f.Discard())
	}
	if err := f.Keep(); err != nil {
		return err
	}
	if c.json {
		return c.printMessage(summary)
	}
	if n := summary.DamagedScopes; n > 0 {
		fmt.Fprintf(c.stderr, "menshen: warning: %d scopes are damaged on the server's disk and are so in the backup\n", n)
	}
	_, err = fmt.Fprintf(c.stderr, "menshen: %s: %s of %s, %d bytes; a restore needs the keyring (root key generation %d or later) and the newest receipts\n",
		path, plural(summary.Records, "record", "records"), plural(summary.Scopes, "scope", "scopes"), size, summary.RootGeneration)
	return err
}

// receiveBackup copies the stream to w. A stream that ends without a summary was
// no backup.
func receiveBackup(stream grpc.ServerStreamingClient[menshenv1.BackupResponse], w io.Writer, bar *screen.Progress) (*menshenv1.BackupSummary, int64, error) {
	var summary *menshenv1.BackupSummary
	var size, total int64
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) && summary != nil {
			bar.Set(size, size)
			return summary, size, nil
		} else if errors.Is(err, io.EOF) {
			err = errors.New("the server ended the backup before it was whole; run it again")
		}
		if err != nil {
			return nil, size, err
		}
		n, err := w.Write(part.GetData())
		if err != nil {
			return nil, size, err
		}
		size += int64(n)
		total = max(total, part.GetEstimatedBytes())
		summary = part.GetSummary()
		bar.Set(size, max(total, size))
	}
}

// backupInfo is what may be told of a backup.
type backupInfo struct {
	Time        time.Time   `json:"time"`
	Server      string      `json:"server"`
	Generation  uint64      `json:"root_generation"`
	Receipts    uint64      `json:"receipts"`
	Records     uint64      `json:"records"`
	Bytes       uint64      `json:"bytes"`
	SHA256      string      `json:"sha256"`
	Tenants     int         `json:"tenants"`
	Credentials []string    `json:"credentials"`
	Scopes      []spaceInfo `json:"scopes"`
}

type spaceInfo struct {
	Name    string `json:"name"`
	Records uint64 `json:"records"`
	State   string `json:"state"` // whole, erased meanwhile, damaged
}

// describeBackup counts as the server does when it makes one: the bytes of the
// file, size, and the records that belong to somebody.
func describeBackup(b store.Contents, size int64) backupInfo {
	info := backupInfo{
		Time: b.Origin.Time, Server: b.Origin.Server, Generation: b.Origin.Generation, Receipts: b.Origin.LedgerNumber,
		Bytes: uint64(size), SHA256: fmt.Sprintf("%x", b.Sum), Tenants: len(b.Tenants),
		Credentials: []string{}, Scopes: []spaceInfo{},
	}
	for _, k := range b.Credentials {
		info.Credentials = append(info.Credentials, credentialNameOf(k))
	}
	for _, sp := range b.Spaces {
		info.Records += sp.Records
	}
	for _, sp := range b.Spaces[1:] {
		state := "whole"
		if sp.Damaged() {
			state = "damaged on the server"
		} else if sp.Erased {
			state = "erased from meanwhile"
		}
		info.Scopes = append(info.Scopes, spaceInfo{sp.Ref.String(), sp.Records, state})
	}
	return info
}

// credentialNameOf is the name of the credential of a record.
func credentialNameOf(k store.Key) string {
	if k.Ref.Tenant == "" {
		return "credentials/" + k.ID
	}
	return "tenants/" + string(k.Ref.Tenant) + "/credentials/" + k.ID
}

func (c *cli) backupVerifyCommand() *cobra.Command {
	var identity string
	cmd := &cobra.Command{
		Use:   "verify FILE --identity KEYFILE",
		Short: "Check a backup without a server, and show what it holds",
		Long: `Read a whole backup: that it opens with the identity, that nothing of it is missing
or altered, and that its counts are right. It needs none of the server's keys, and
so shows names and numbers, never the content of a record.`,
		Example: "  menshen backup verify menshen-monday.backup --identity backup-identity.txt",
		Args:    exactly("FILE"),
	}
	cmd.Flags().StringVar(&identity, "identity", "", "file of an age identity or SSH private key (required)")
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if identity == "" {
			return usagef("%s: give --identity", cmd.CommandPath())
		}
		in, err := openBackup(args[0], identity)
		if err != nil {
			return err
		}
		defer in.Close()
		found, err := store.VerifyBackup(in)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		file, err := os.Stat(args[0])
		if err != nil {
			return err
		}
		return c.printBackup(describeBackup(found, file.Size()))
	}
	return cmd
}

func (c *cli) printBackup(info backupInfo) error {
	if c.json {
		return c.printJSON(info)
	}
	err := c.printFields(
		"made", info.Time.Format(time.RFC3339)+" by version "+info.Server,
		"root key", fmt.Sprintf("generation %d", info.Generation),
		"receipts", fmt.Sprintf("%d when it was begun", info.Receipts),
		"holds", fmt.Sprintf("%s of %s, %d bytes", plural(int64(info.Records), "record", "records"), plural(int64(len(info.Scopes)), "scope", "scopes"), info.Bytes),
		"among them", plural(int64(info.Tenants), "tenant", "tenants")+", "+plural(int64(len(info.Credentials)), "credential", "credentials"),
		"content's SHA-256", info.SHA256,
	)
	if err != nil || len(info.Scopes) == 0 {
		return err
	}
	t := newTable("SCOPE", "RECORDS", "STATE")
	for _, s := range info.Scopes {
		t.row(s.Name, fmt.Sprint(s.Records), s.State)
	}
	fmt.Fprintln(c.stdout)
	return c.printTable(t, "")
}

// openBackup opens an encrypted backup for reading.
func openBackup(path, identity string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	plain, err := backup.Decrypt(f, identity)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{plain, f}, nil
}
