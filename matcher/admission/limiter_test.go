package admission

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// calls are work that takes a core, for serviceTime each.
var calls = Work{Op: Identify, Rows: 400_000}

const serviceTime = 2 * time.Millisecond

// taught makes a limiter of four cores that has seen enough calls to know what
// a crop takes. Time is that of the test's bubble.
func taught(opt Options) *Limiter {
	if opt.Cores == 0 {
		opt.Cores = 4
	}
	l := New(opt)
	for range 200 {
		t, err := l.Admit(context.Background(), Ask{Tenant: "teacher", Work: calls})
		if err != nil {
			panic(err)
		}
		time.Sleep(serviceTime)
		t.Done(nil)
	}
	return l
}

// outcome counts what became of a tenant's calls.
type outcome struct {
	mu       sync.Mutex
	admitted int
	refused  int
	latest   time.Duration // the longest that an admitted call took
	refusal  time.Duration // the longest that a refusal took
	waits    []time.Duration
}

func (o *outcome) note(began time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	took := time.Since(began)
	if err != nil {
		o.refused++
		o.refusal = max(o.refusal, took)
		return
	}
	o.admitted++
	o.latest = max(o.latest, took)
	o.waits = append(o.waits, took)
}

// offer lets a tenant's calls arrive at a rate for a while, whether or not they
// are answered (an open loop), each of the service time.
func offer(t *testing.T, l *Limiter, tenant string, every time.Duration, lasts time.Duration, all *sync.WaitGroup) *outcome {
	o := &outcome{}
	all.Go(func() {
		// Arrivals at random, the same in each run.
		src := rand.New(rand.NewPCG(1, uint64(every)))
		for end := time.Now().Add(lasts); time.Now().Before(end); {
			time.Sleep(time.Duration(src.ExpFloat64() * float64(every)))
			all.Go(func() {
				began := time.Now()
				ticket, err := l.Admit(t.Context(), Ask{Tenant: tenant, Work: calls})
				if err == nil {
					time.Sleep(serviceTime)
					ticket.Done(nil)
				} else if !errors.Is(err, ErrOverloaded) {
					t.Error(err)
				}
				o.note(began, err)
			})
		}
	})
	return o
}

// idle fails the test unless the limiter holds nothing.
func idle(t *testing.T, l *Limiter) {
	t.Helper()
	if s := l.Stats(); s.Running != 0 || s.Waiting != 0 || s.Bytes != 0 || s.Wait != 0 {
		t.Errorf("the limiter still holds something: %+v", s)
	}
	if len(l.queued) != 0 {
		t.Errorf("%d flows queued", len(l.queued))
	}
	for k, f := range l.flows {
		if f.running != 0 || f.backlog != 0 || f.first != nil {
			t.Errorf("flow %v holds something: %+v", k, f)
		}
	}
}

// Ten times too much: the cores stay busy, who is admitted does not wait long,
// and who is not hears at once.
func TestTenfoldOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		var all sync.WaitGroup
		// Four cores do 2000 calls a second.
		o := offer(t, l, "a", time.Second/(10*2000), time.Second, &all)
		all.Wait()
		if goodput := float64(o.admitted) / 2000; goodput < 0.98 || o.refused < 8*o.admitted {
			t.Errorf("%d admitted, %d refused", o.admitted, o.refused)
		}
		if o.latest > serviceTime+2*l.Stats().Bound {
			t.Errorf("an admitted call took %v with a bound of %v", o.latest, l.Stats().Bound)
		}
		if o.refusal != 0 {
			t.Errorf("a refusal took %v", o.refusal)
		}
		idle(t, l)
	})
}

// Four callers a core who wait for their answers are never refused; of ten times
// too many calls those that are admitted wait less than these callers may.
func TestTheQueueIsShortWhileManyAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		var all sync.WaitGroup
		for range 4 * 4 {
			all.Go(func() {
				for range 100 {
					ticket, err := l.Admit(t.Context(), Ask{Tenant: "fleet", Work: calls})
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(serviceTime)
					ticket.Done(nil)
				}
			})
		}
		all.Wait()
		long, short := time.Duration(l.boundAt(0)), time.Duration(l.boundAt(1))
		if short >= long {
			t.Fatalf("bounds of %v and %v", short, long)
		}
		o := offer(t, l, "flood", time.Second/(10*2000), time.Second, &all)
		all.Wait()
		if half := percentile(o.waits, 0.5); half < short || half > short+2*serviceTime {
			t.Errorf("half of the answers took %v or less, with waits of %v at most; others may wait %v", half, short, long)
		}
		if goodput := float64(o.admitted) / 2000; goodput < 0.98 {
			t.Errorf("%d admitted", o.admitted)
		}
		idle(t, l)
	})
}

// A tenant that offers twenty times its share takes nothing from the others,
// and one that is alone gets the whole machine.
func TestShares(t *testing.T) {
	const every = time.Second / (2000 / 4) * 100 / 80 // 80% of a quarter of the machine
	run := func(t *testing.T, loud bool) (quiet, noisy *outcome) {
		l := taught(Options{})
		var all sync.WaitGroup
		var others []*outcome
		for _, name := range []string{"a", "b", "c"} {
			others = append(others, offer(t, l, name, every, 2*time.Second, &all))
		}
		rate := every
		if loud {
			rate = every / 20
		}
		noisy = offer(t, l, "loud", rate, 2*time.Second, &all)
		all.Wait()
		idle(t, l)
		return others[0], noisy
	}
	synctest.Test(t, func(t *testing.T) {
		before, _ := run(t, false)
		after, noisy := run(t, true)
		if share := float64(after.admitted) / float64(after.admitted+after.refused); share < 0.995 {
			t.Errorf("%d of the quiet tenant's calls were refused, %d admitted", after.refused, after.admitted)
		}
		if noisy.refused < 5*noisy.admitted {
			t.Errorf("the loud tenant: %d admitted, %d refused", noisy.admitted, noisy.refused)
		}
		// It is not let in to wait for what others take back of their share.
		if got := percentile(noisy.waits[len(noisy.waits)/2:], 0.5); got > briefWaits*serviceTime*3/2 {
			t.Errorf("half of the loud tenant's calls wait for more than %v", got)
		}
		if got, want := percentile(after.waits, 0.99), percentile(before.waits, 0.99); got > want*3/2 {
			t.Errorf("the quiet tenant's p99 is %v beside the loud one, %v without", got, want)
		}
	})
}

func percentile(d []time.Duration, p float64) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[int(float64(len(s)-1)*p)]
}

// Who waits together is served by share, not by number.
func TestQueuesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{Cores: 1})
		var all sync.WaitGroup
		var mu sync.Mutex
		served := map[string]int{}
		call := func(tenant string, patient bool) {
			all.Go(func() {
				ticket, err := l.Admit(t.Context(), Ask{Tenant: tenant, Work: calls, Patient: patient})
				if err != nil {
					return
				}
				time.Sleep(serviceTime)
				mu.Lock()
				served[tenant]++
				mu.Unlock()
				ticket.Done(nil)
			})
		}
		for range 400 {
			call("bulk", true)
		}
		synctest.Wait()
		for range 50 { // as many as there is room for, twice
			call("a", true)
			call("b", true)
		}
		time.Sleep(40 * serviceTime)
		mu.Lock()
		a, b, bulk := served["a"], served["b"], served["bulk"]
		mu.Unlock()
		if a+b+bulk < 30 || a-b > 2 || b-a > 2 || bulk-a > 4 || a-bulk > 4 {
			t.Errorf("of three flows that wait, they served %d, %d and %d", a, b, bulk)
		}
		all.Wait()
		idle(t, l)
	})
}

// Patient work waits behind gates, and is not starved by them.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		var all sync.WaitGroup
		done := 0
		var mu sync.Mutex
		for range 300 {
			all.Go(func() {
				ticket, err := l.Admit(t.Context(), Ask{Tenant: "a", Work: calls, Patient: true})
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(serviceTime)
				ticket.Done(nil)
				mu.Lock()
				done++
				mu.Unlock()
			})
		}
		gates := offer(t, l, "a", time.Second/5000, 500*time.Millisecond, &all)
		time.Sleep(500 * time.Millisecond)
		mu.Lock()
		n := done
		mu.Unlock()
		if n < 100 || n > 299 { // a fifth of 1000
			t.Errorf("%d of 300 patient calls done beside gates", n)
		}
		all.Wait()
		if gates.admitted < 680 {
			t.Errorf("%d gate calls admitted, %d refused", gates.admitted, gates.refused)
		}
		idle(t, l)
	})
}

// A caller that goes leaves the queue at once, and gives back what it holds.
func TestCallersThatGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{Cores: 1})
		held := make([]Ticket, 1)
		for i := range held {
			var err error
			if held[i], err = l.Admit(t.Context(), Ask{Tenant: "a", Work: calls}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := l.Admit(ctx, Ask{Tenant: "b", Work: calls, Bytes: 100})
				errs <- err
			}()
		}
		synctest.Wait()
		if s := l.Stats(); s.Waiting != 2 || s.Bytes != 200 {
			t.Fatalf("%+v", s)
		}
		cancel()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if s := l.Stats(); s.Waiting != 0 || s.Bytes != 0 {
			t.Errorf("%+v", s)
		}
		for i := range held {
			held[i].Done(nil)
			held[i].Done(nil) // once is enough, twice does no harm
		}
		idle(t, l)
		if _, err := l.Admit(ctx, Ask{Tenant: "b", Work: calls}); !errors.Is(err, context.Canceled) {
			t.Errorf("a call that was given up before: %v", err)
		}
	})
}

// A call is never lost between its turn and its caller's going.
func TestGoingWhenItsTurnComes(t *testing.T) {
	l := New(Options{Cores: 1})
	var all sync.WaitGroup
	for i := range 2000 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%50)*time.Microsecond+time.Millisecond)
		all.Go(func() {
			defer cancel()
			ticket, err := l.Admit(ctx, Ask{Tenant: "a", Work: Work{}, Bytes: 1, Patient: true})
			ticket.Done(err)
		})
	}
	all.Wait()
	idle(t, l)
}

// Who would be too late is refused at once, and not after its deadline.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{Cores: 1})
		held, _ := l.Admit(t.Context(), Ask{Tenant: "a", Work: calls})
		short, cancel := context.WithTimeout(t.Context(), serviceTime/2)
		defer cancel()
		began := time.Now()
		_, err := l.Admit(short, Ask{Tenant: "a", Work: calls})
		var o *Overload
		if !errors.As(err, &o) || o.Why != Deadline || time.Since(began) != 0 {
			t.Errorf("a deadline of half a service time: %v after %v", err, time.Since(began))
		}
		if o.RetryAfter <= 0 || o.RetryAfter > retryLongest*5/4 {
			t.Errorf("retry after %v", o.RetryAfter)
		}
		// Enough by the estimate, but what is before it takes longer.
		longer, cancel := context.WithTimeout(t.Context(), 4*serviceTime)
		defer cancel()
		got := make(chan error, 1)
		go func() {
			_, err := l.Admit(longer, Ask{Tenant: "a", Work: calls})
			got <- err
		}()
		time.Sleep(3*serviceTime + serviceTime/2)
		held.Done(nil)
		if err := <-got; !errors.As(err, &o) || o.Why != Deadline {
			t.Errorf("a turn that comes too late: %v", err)
		}
		idle(t, l)
		// A machine that has nothing to do tries.
		if ticket, err := l.Admit(short, Ask{Tenant: "a", Work: calls}); short.Err() == nil {
			t.Errorf("%v, %v", ticket, err)
		}
	})
}

// Announced calls count until they arrive, and not for ever.
func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		var announced []Announcement
		for {
			a, err := l.Announce("a")
			if err != nil {
				break
			}
			announced = append(announced, a)
			if len(announced) > 10_000 {
				t.Fatal("no end")
			}
		}
		if n := len(announced); n < 4 {
			t.Errorf("only %d announced calls", n)
		}
		if _, err := l.Announce("b"); err != nil {
			t.Errorf("another tenant: %v", err)
		}
		announced[0].Arrived()
		announced[1].Arrived()
		if _, err := l.Announce("a"); err != nil {
			t.Errorf("after two arrived: %v", err)
		}
		time.Sleep(comingSlots * comingWidth)
		if _, err := l.Announce("a"); err != nil {
			t.Errorf("after the others stalled: %v", err)
		}
		for _, a := range announced {
			a.Arrived() // late: its slot is over
		}
		if got := l.coming.sum(l.now()); got < 0 {
			t.Errorf("sum %d", got)
		}
		Announcement{}.Arrived()
	})
}

// The refused are told to come back one after the other, not all at once.
func TestRetriesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		var all sync.WaitGroup
		var mu sync.Mutex
		early, late := 0, 0
		for range 2000 {
			all.Go(func() {
				ticket, err := l.Admit(t.Context(), Ask{Tenant: "a", Work: calls})
				if err == nil {
					time.Sleep(serviceTime)
					ticket.Done(nil)
					return
				}
				var o *Overload
				errors.As(err, &o)
				mu.Lock()
				defer mu.Unlock()
				if o.RetryAfter < 500*time.Millisecond {
					early++
				} else {
					late++
				}
			})
		}
		all.Wait() // 2000 calls are a second's work
		if early < 500 || late < 500 {
			t.Errorf("%d are to come back in the first half of the second, %d later", early, late)
		}
	})
}

func TestLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := taught(Options{})
		cost := time.Duration(l.costs.estimate(calls.cell(), calls.prior()))
		if cost < serviceTime*9/10 || cost > serviceTime*11/10 {
			t.Errorf("a crop is thought to take %v, it takes %v", cost, serviceTime)
		}
		if got := time.Duration(l.costs.service()); got < serviceTime*8/10 || got > serviceTime*12/10 {
			t.Errorf("the service time is thought to be %v", got)
		}
		// What failed teaches nothing.
		ticket, _ := l.Admit(t.Context(), Ask{Tenant: "a", Work: calls})
		time.Sleep(time.Second)
		ticket.Done(errors.New("x"))
		if after := time.Duration(l.costs.estimate(calls.cell(), calls.prior())); after != cost {
			t.Errorf("%v after a failure", after)
		}
	})
}

func TestAdmitAllocatesNothing(t *testing.T) {
	l := New(Options{Cores: 4})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	ask := Ask{Tenant: "a", Work: Work{Op: Verify, Probe: Embedding}, Bytes: 512}
	if n := testing.AllocsPerRun(1000, func() {
		a, _ := l.Announce("a")
		a.Arrived()
		ticket, err := l.Admit(ctx, ask)
		if err != nil {
			t.Fatal(err)
		}
		ticket.Done(nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdmit(b *testing.B) {
	ask := Ask{Tenant: "a", Work: Work{Op: Verify, Probe: Embedding}, Bytes: 512}
	b.Run("callers=1", func(b *testing.B) {
		l := New(Options{})
		for b.Loop() {
			ticket, _ := l.Admit(b.Context(), ask)
			ticket.Done(nil)
		}
	})
	b.Run("callers=cores", func(b *testing.B) {
		l := New(Options{})
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				ticket, _ := l.Admit(b.Context(), ask)
				ticket.Done(nil)
			}
		})
	})
	b.Run("announce", func(b *testing.B) {
		l := New(Options{})
		for b.Loop() {
			a, _ := l.Announce("a")
			a.Arrived()
		}
	})
}
