package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/menshen-io/menshen/bench/load"
	"github.com/menshen-io/menshen/bench/report"
	"github.com/menshen-io/menshen/bench/revoke"
	"github.com/menshen-io/menshen/bench/target"
	"github.com/menshen-io/menshen/matcher/receipt"
	"github.com/menshen-io/menshen/matcher/signing"
)

const revokeHelp = `revoke measures the end of a purpose. It starts the menshen beside it in a process
of its own, on loopback with a temporary data directory, enrols --subjects synthetic
subjects in one scope and --others in the scope of another tenant, and lets
--clients clients ask in each without a rest: half of the calls in the other scope
identify, and one in 128 in the first, where it would take most of the machine. As
many more ask the other scope at --rate calls a second in all, and show what others
feel. Then the first scope is revoked. All go on asking for --after; who is refused
asks the other scope three times out of four, so that the machine has as much to do
as ever.

What is printed (keys of --json):

  matches_after_revoke  MATCH for calls that began after the revocation was answered,
                        and MATCH that arrived after it. Must be 0
  revoke_ms             from sending the revocation to the last MATCH that arrived
  erase_ms              from sending it until its answer and complete receipt were there
  scan_bytes_left       bytes of the scope that the search of the files found, as the
                        receipt states
  others_p99_ratio      99th percentile of the other scope's calls that were due during
                        the erasure, over the lesser of those before and after it
                        (before, the scope that ends is searched too); null where none
                        was due
  receipt_verified      the receipt holds under the server's public key, checked without
                        the server, and states as many subjects as were enrolled

Every second probe is of somebody who is enrolled. Latencies count from when a call
was due. A large scope takes its time to enrol: some minutes for a million.

--record DIR writes the JSON document to DIR, for bench/results.

Exit status: 0 measured, and nothing matched too late; 1 something did, the receipt
does not hold, or the run failed; 2 bad flags, 130 interrupted.`

const revokeExamples = `  menshen-bench revoke
  menshen-bench revoke --subjects 100000 --clients 64
  menshen-bench revoke --subjects 1000000 --clients 64 --json --record bench/results`

// errTooLate: the measurement was made, and what it measured must not be.
var errTooLate = errors.New("the revocation does not hold what it promises")

type revokeFlags struct {
	subjects, others, clients int
	rate                      float64
	warm, before, after       time.Duration
	seed                      uint64
	child                     childFlags
	asJSON                    bool
	record                    string
}

// revokeOutput is the JSON document of the subcommand.
type revokeOutput struct {
	*revoke.Result
	ScanBytesLeft   uint64             `json:"scan_bytes_left"`
	ScanFiles       uint64             `json:"scan_files"`
	ScanBytes       uint64             `json:"scan_bytes"`
	ReceiptVerified bool               `json:"receipt_verified"`
	Steps           revokeSteps        `json:"steps"`
	Enrolled        int                `json:"enrolled"`
	EnrolledOthers  int                `json:"enrolled_others"`
	EnrolPerSecond  float64            `json:"enrol_per_second"` // of both scopes
	Clients         int                `json:"clients"`          // of each scope
	Rate            float64            `json:"rate"`
	Model           string             `json:"model"`
	Server          string             `json:"server"`
	Kernel          string             `json:"kernel"`
	Environment     report.Environment `json:"environment"`
}

// revokeSteps are what the receipt says of the steps, in milliseconds after the
// request reached the server.
type revokeSteps struct {
	FencedMS       float64 `json:"fenced_ms"`
	KeyDestroyedMS float64 `json:"key_destroyed_ms"`
	ErasedMS       float64 `json:"erased_ms"`
	VerifiedMS     float64 `json:"verified_ms"`
}

func newRevoke(commandLine []string) *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:     "revoke",
		Short:   "Measure the end of a scope under load, and that nothing matches after it",
		Long:    revokeHelp,
		Example: revokeExamples,
		Args:    flagsOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			return f.run(cmd.Context(), commandLine, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&f.subjects, "subjects", 10_000, "subjects of the scope that is revoked, with a template each")
	flags.IntVar(&f.others, "others", 1000, "subjects of the other scope")
	flags.IntVar(&f.clients, "clients", 16, "clients of each scope that do not rest")
	flags.Float64Var(&f.rate, "rate", 500, "calls a second, in all, whose latency in the other scope is measured")
	flags.DurationVar(&f.warm, "warm", time.Second, "load before anything is measured")
	flags.DurationVar(&f.before, "before", 5*time.Second, "time before the revocation, which the time of the erasure is compared with")
	flags.DurationVar(&f.after, "after", 5*time.Second, "how long clients go on asking, which the time of the erasure is compared with too")
	flags.Uint64Var(&f.seed, "seed", 1, "seed of the data")
	f.child.add(cmd)
	flags.BoolVar(&f.asJSON, "json", false, "print the result as JSON")
	flags.StringVar(&f.record, "record", "", "write the JSON document also to a file in this folder")
	return cmd
}

func (f *revokeFlags) check() error {
	for _, n := range []struct {
		name             string
		value, low, high int
	}{{"subjects", f.subjects, 1, maxTemplate}, {"others", f.others, 1, maxTemplate}, {"clients", f.clients, 1, 1024}} {
		if n.value < n.low || n.value > n.high {
			return fmt.Errorf("--%s %d: %d to %d", n.name, n.value, n.low, n.high)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"warm", f.warm}, {"before", f.before}, {"after", f.after}} {
		if d.value < 100*time.Millisecond || d.value > maxPart {
			return fmt.Errorf("--%s %s: 100ms to %s", d.name, d.value, maxPart)
		}
	}
	if !(f.rate >= 1 && f.rate <= maxRate) {
		return fmt.Errorf("--rate %g: 1 to %g", f.rate, float64(maxRate))
	}
	return checkRecord(f.record)
}

func (f *revokeFlags) run(ctx context.Context, commandLine []string, stdout, stderr io.Writer) (err error) {
	started := time.Now()
	bars := phases{ctx: ctx, w: stderr}
	defer bars.stop()
	step := bars.begin("starting the server", 1)
	server, err := target.Start(ctx, f.child.ServerOptions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	step()
	out, err := f.measure(ctx, server, &bars)
	if err != nil {
		return err
	}
	step = bars.begin("verifying the receipt", 1)
	public, err := server.PublicKey(ctx)
	if err != nil {
		return err
	}
	verr := out.verify(public)
	step()
	bars.stop()
	out.Environment = report.NewEnvironment(commandLine, started)
	out.Environment.Seconds = time.Since(started).Round(time.Millisecond).Seconds()
	if f.record != "" {
		path := filepath.Join(f.record, fmt.Sprintf("revoke-%dx%d.json", f.subjects, f.clients))
		if err := report.WriteJSONFile(path, out); err != nil {
			return err
		}
		note(stderr, "written to %s", path)
	}
	if out.MatchesBefore == 0 {
		note(stderr, "nothing matched before the revocation: the run shows nothing")
	}
	if n := out.OthersDuring.Calls; n < 200 {
		note(stderr, "only %d calls of the other scope were due during the erasure: their 99th percentile is the slowest of few", n)
	}
	if err := writeResult(stdout, f.asJSON, out, out.table()); err != nil {
		return err
	}
	switch {
	case out.MatchesAfterRevoke > 0:
		return fmt.Errorf("%w: %d answers MATCH after it was answered", errTooLate, out.MatchesAfterRevoke)
	case verr != nil:
		return fmt.Errorf("%w: %w", errTooLate, verr)
	}
	return nil
}

// measure enrols and revokes.
func (f *revokeFlags) measure(ctx context.Context, server *target.Server, bars *phases) (_ *revokeOutput, err error) {
	dialer, err := target.NewDialer(server.Address, "", false)
	if err != nil {
		return nil, err
	}
	conn, err := dialer.Dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	info, err := target.Describe(ctx, conn, server.AdminKey)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	o := revoke.Options{Conn: conn, Clients: f.clients, Rate: f.rate, Warm: f.warm, Before: f.before, After: f.after}
	for _, side := range []struct {
		tenant **target.Tenant
		size   int
		seed   uint64
	}{{&o.Ended, f.subjects, f.seed}, {&o.Other, f.others, f.seed + 1}} {
		made, err := target.Populate(ctx, conn, server.AdminKey, target.PopulateOptions{Tenants: 1, Gallery: side.size, Seed: side.seed, Progress: bars.begin})
		if err != nil {
			return nil, err
		}
		*side.tenant = made[0]
	}
	rate := float64(f.subjects+f.others) / time.Since(began).Seconds()
	for i, identifications := range []int{endedIdentifies, requestsEach} {
		if o.Piles[i], err = mixedRequests([]*target.Tenant{o.Ended, o.Other}[i], identifications); err != nil {
			return nil, err
		}
	}
	lanes, err := load.NewLanes(context.Background(), dialer, min(f.clients, 64), o.Ended.GateKey, o.Other.GateKey)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lanes.Close()) }()
	o.Caller = lanes
	var done func()
	o.Progress = func(stage string) {
		if done != nil {
			done()
		}
		done = bars.begin(stage, 1)
	}
	result, err := revoke.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	done()
	return &revokeOutput{
		Result: result, Enrolled: f.subjects, EnrolledOthers: f.others, EnrolPerSecond: rate, Clients: f.clients, Rate: f.rate,
		Model: info.ModelID, Server: info.Version, Kernel: info.Kernel,
	}, nil
}

const (
	// requestsEach is how many requests of each kind are made beforehand.
	requestsEach = 256
	// endedIdentifies is how many of those to the scope that ends are identifications.
	// With as many as elsewhere, searching a million templates takes most of the
	// machine, and the end of that is such a relief to the others that the erasure is
	// not seen beside it.
	endedIdentifies = 2
)

// mixedRequests are verifications with some identifications between them, every
// second pair mated.
func mixedRequests(t *target.Tenant, identifications int) (out []target.Request, err error) {
	var piles [2][]target.Request
	for i, verb := range []string{target.Verify, target.Identify} {
		if piles[i], err = t.Requests(target.Kind{Verb: verb, Probe: target.Embedding}, []int{requestsEach, identifications}[i], nil); err != nil {
			return nil, err
		}
	}
	each := requestsEach / identifications
	for i, one := range piles[0] {
		out = append(out, one)
		if i%each == each-1 {
			out = append(out, piles[1][i/each])
		}
	}
	return out, nil
}

// verify checks the receipt with the public key alone, and takes over what it
// states.
func (o *revokeOutput) verify(public string) error {
	keys, err := signing.ParsePublicKeys(public)
	if err != nil {
		return err
	}
	r, _, err := receipt.Parse(o.Receipt.GetDocument(), keys)
	if err != nil {
		return fmt.Errorf("the receipt does not hold: %w", err)
	}
	after := func(t time.Time) float64 { return float64(t.Sub(r.Times.Requested).Microseconds()) / 1e3 }
	o.Steps = revokeSteps{after(r.Times.Fenced), after(r.Times.KeyDestroyed), after(r.Times.Erased), after(r.Times.Verified)}
	if r.Scan == nil {
		return errors.New("the receipt tells of no search of the files")
	}
	o.ScanBytesLeft, o.ScanFiles, o.ScanBytes = r.Scan.Left, r.Scan.Files, r.Scan.Bytes
	if r.Destroyed.Subjects != uint64(o.Enrolled) || r.Destroyed.Templates != uint64(o.Enrolled) {
		return fmt.Errorf("the receipt states %d subjects and %d templates of %d that were enrolled", r.Destroyed.Subjects, r.Destroyed.Templates, o.Enrolled)
	}
	o.ReceiptVerified = true
	return nil
}

func (o *revokeOutput) table() *report.Table {
	t := &report.Table{}
	t.Add("scope", fmt.Sprintf("%d subjects, %d clients, %s answers/s before; the other scope: %d subjects, %d clients, %s calls/s", o.Enrolled, o.Clients, short(o.RateBefore), o.EnrolledOthers, o.Clients, short(o.Rate)))
	t.Add("model", o.Model)
	t.Add("cpu", fmt.Sprintf("%s, %d cores shared with the clients", o.Environment.CPU, o.Environment.Cores))
	t.Add("enrolled", fmt.Sprintf("%s a second", short(o.EnrolPerSecond)))
	t.Add()
	t.Add("matches_after_revoke", fmt.Sprint(o.MatchesAfterRevoke), fmt.Sprintf("%d matches before it", o.MatchesBefore))
	t.Add("revoke_ms", short(o.RevokeMS), "to the last match")
	t.Add("erase_ms", short(o.EraseMS), fmt.Sprintf("fenced at %s, key destroyed at %s, records gone at %s, files searched at %s ms",
		short(o.Steps.FencedMS), short(o.Steps.KeyDestroyedMS), short(o.Steps.ErasedMS), short(o.Steps.VerifiedMS)))
	t.Add("scan_bytes_left", fmt.Sprint(o.ScanBytesLeft), fmt.Sprintf("of %d in %d files", o.ScanBytes, o.ScanFiles))
	ratio := "not measured"
	if o.OthersP99Ratio != nil {
		ratio = short(*o.OthersP99Ratio)
	}
	t.Add("others_p99_ratio", ratio, fmt.Sprintf("%s ms during (%d calls), %s before, %s after; the slowest %s, %s, %s",
		short(o.OthersDuring.P99MS), o.OthersDuring.Calls, short(o.OthersBefore.P99MS), short(o.OthersAfter.P99MS), short(o.OthersDuring.MaxMS), short(o.OthersBefore.MaxMS), short(o.OthersAfter.MaxMS)))
	t.Add("receipt_verified", strings.ToLower(fmt.Sprint(o.ReceiptVerified)), "with the public key alone")
	return t
}
