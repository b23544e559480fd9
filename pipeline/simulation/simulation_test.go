package simulation

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// firstCampaign is the number of the first campaign.
const firstCampaign = 10001

// simulate runs one plan in fake time. It returns the promises that were broken, and the trace.
func simulate(t *testing.T, p plan, pt plant) (violations, trace []string) {
	t.Helper()
	var running atomic.Pointer[world]
	stuck := time.AfterFunc(stuckAfter, func() { // in real time
		if w := running.Load(); w != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			fmt.Fprintf(os.Stderr, "fake time stands still: something runs without a pause\n%s\n%s\n", p.describe(), strings.Join(w.trace, "\n"))
		}
	})
	defer stuck.Stop()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, p, pt)
		running.Store(w)
		defer func() {
			w.close()
			synctest.Wait()
			violations, trace = w.violations, w.trace
		}()
		w.run()
	})
	return violations, trace
}

// stuckAfter is the real time after which a run prints its trace although it has not ended.
const stuckAfter = time.Minute

// run runs the plan, ends every fault, and waits until every campaign is settled.
func (w *world) run() {
	for i, run := range w.plan.processes {
		w.add(fmt.Sprintf("p%d", i+1), run)
	}
	for i, c := range w.plan.campaigns {
		w.later(c.at, func() { w.confirm(firstCampaign+uint64(i), c) })
	}
	for _, s := range w.plan.singles {
		w.later(s.at, func() { w.send(s) })
	}
	for _, e := range w.plan.events {
		w.later(e.at, func() {
			w.tracef("%s", e.name)
			e.do(w)
		})
	}
	w.goOn(w.plan.lasts)
	w.mend()
	deadline, look := time.Now().Add(settleWithin), time.Now().Add(5*time.Minute)
	for !w.settled() {
		if !look.IsZero() && time.Now().After(look) {
			look = time.Time{}
			w.traceGroups()
		}
		if time.Now().After(deadline) {
			w.violate("P3", "not settled %s after the last fault: %s", settleWithin, w.open())
			break
		}
		w.goOn(time.Second)
	}
	if len(w.plan.singles) > 0 {
		for deadline := time.Now().Add(validity + 10*time.Minute); w.singlesOpen() > 0 && time.Now().Before(deadline); {
			w.goOn(time.Second)
		}
		for time.Since(w.lastSingle()) < receiptWindow { // the last of their receipts come
			w.goOn(time.Second)
		}
	}
	for deadline := time.Now().Add(5 * time.Minute); !w.counted() && time.Now().Before(deadline); {
		w.goOn(time.Second)
	}
	w.traceGroups()
	for _, p := range w.processes {
		if p.running() {
			w.tracef("%s stops", p.name)
			p.stop()
		}
	}
	w.check()
}

// traceGroups traces which member has which partitions, for a run that does not end.
func (w *world) traceGroups() {
	names := w.cluster.Names
	for _, group := range []string{names.SenderGroup(route, schemas.LaneBulk), names.Group("expander"), names.Group("tracker"), names.Group("scheduler"), names.Group("analytics")} {
		info := w.broker.GroupInfo(group)
		if info == nil {
			continue
		}
		w.tracef("group %s: %s, epoch %d", group, info.State, info.Epoch)
		for _, m := range info.Members {
			w.tracef("  member %s: %v", m.MemberID, m.Assignment)
		}
		for topic, commits := range info.Commits {
			for _, p := range slices.Sorted(maps.Keys(commits)) {
				var end int64
				if at := w.broker.PartitionInfo(topic, p); at != nil {
					end = at.HighWatermark
				}
				w.tracef("  %s/%d: committed %d %q of %d, at %s", topic, p, commits[p].Offset, commits[p].Metadata, end, w.since(commits[p].At))
			}
		}
	}
	w.tracef("running: %v", func() (out []string) {
		for _, p := range w.processes {
			out = append(out, p.name, fmt.Sprint(p.stillRuns()))
		}
		return out
	}())
}

// settleWithin is how long a campaign may take to settle after the last fault: its validity, ten minutes of grace, and
// twenty minutes for a cancel that gets no answer.
const settleWithin = 40 * time.Minute

// task is a function to call at a time.
type task struct {
	at time.Time
	do func()
}

// later calls do after a while.
func (w *world) later(d time.Duration, do func()) {
	w.tasks = append(w.tasks, task{time.Now().Add(d), do})
}

// goOn lets fake time pass and runs the tasks that become due.
func (w *world) goOn(d time.Duration) {
	for end := time.Now().Add(d); ; {
		w.revive()
		next := -1
		for i := range w.tasks {
			if next < 0 || w.tasks[i].at.Before(w.tasks[next].at) {
				next = i
			}
		}
		if next < 0 || w.tasks[next].at.After(end) {
			time.Sleep(time.Until(end))
			return
		}
		t := w.tasks[next]
		if wait := min(time.Until(t.at), time.Second); wait > 0 {
			time.Sleep(wait)
			continue
		}
		w.tasks = slices.Delete(w.tasks, next, next+1)
		t.do()
	}
}

// add starts a process and keeps it.
func (w *world) add(name string, run []string) {
	w.processes = append(w.processes, w.start(name, run))
}

// startMore starts one more process.
func (w *world) startMore(run []string) {
	if len(w.processes) < 8 {
		w.more++
		w.add(fmt.Sprintf("q%d", w.more), run)
	}
}

// anyProcess returns one of the running processes.
func (w *world) anyProcess(which uint64) *process {
	var running []*process
	for _, p := range w.processes {
		if p.running() {
			running = append(running, p)
		}
	}
	if len(running) == 0 {
		return nil
	}
	return running[which%uint64(len(running))]
}

// arm sets a point for the processes that can reach it.
func (w *world) arm(at point) {
	for _, p := range w.processes {
		p.net.arm(at)
	}
}

// restartIn starts a process again after a while.
func (w *world) restartIn(p *process, d time.Duration) {
	p.restarts = true
	w.later(d, func() {
		w.processes = slices.DeleteFunc(w.processes, func(x *process) bool { return x == p })
		w.ended = append(w.ended, p)
		base, n, _ := strings.Cut(p.name, ".")
		k, _ := strconv.Atoi(n)
		w.add(base+"."+strconv.Itoa(k+1), p.run)
	})
}

// revive starts the processes again that died at a point.
func (w *world) revive() {
	for _, p := range w.processes {
		if p.isKilled() && !p.restarts {
			w.restartIn(p, 2*time.Second)
		}
	}
}

// mend ends every fault.
func (w *world) mend() {
	w.tracef("everything is mended")
	w.setRedisDown(false)
	w.redis.SetError("")
	w.setCarrierDown(0)
	w.plane.setAway(false)
	for _, p := range w.processes {
		p.setSkew(0)
		p.net.disarm()
		p.thaw()
	}
	for i := range w.plan.campaigns {
		w.resume(firstCampaign + uint64(i))
	}
}

func (w *world) pause(number uint64) {
	w.act(number, func(r *fanfarev1.Campaign) bool {
		if r.GetState() != schemas.StateSending && r.GetState() != schemas.StatePreparing {
			return false
		}
		r.State = schemas.StatePaused
		return true
	})
}

func (w *world) resume(number uint64) {
	w.act(number, func(r *fanfarev1.Campaign) bool {
		if r.GetState() != schemas.StatePaused {
			return false
		}
		r.State = schemas.StateSending
		if r.GetFreezeId() == "" {
			r.State = schemas.StatePreparing
		}
		return true
	})
}

func (w *world) act(number uint64, change func(*fanfarev1.Campaign) bool) {
	if w.plane.campaign(number) != nil && w.plane.act(number, change) {
		w.tracef("%s is %s", schemas.CampaignID(number), schemas.StateName(w.plane.campaign(number).GetState()))
	}
}

func (w *world) settled() bool {
	for i := range w.plan.campaigns {
		if !w.plane.campaign(firstCampaign + uint64(i)).GetSettled() {
			return false
		}
	}
	return true
}

// open returns what is not settled yet, as text.
func (w *world) open() string {
	var b strings.Builder
	for i := range w.plan.campaigns {
		if c := w.plane.campaign(firstCampaign + uint64(i)); !c.GetSettled() {
			fmt.Fprintf(&b, "%s is %s (%s), version %d; ", c.GetId(), schemas.StateName(c.GetState()), c.GetReason(), c.GetVersion())
		}
	}
	return b.String()
}

// TestSimulation runs FANFARE_TEST_SEEDS seeds (default 150), starting with FANFARE_TEST_FIRST_SEED (default 1), and
// begins no further seed after FANFARE_TEST_FOR (default one minute). With FANFARE_TEST_SEED it runs only that seed.
func TestSimulation(t *testing.T) {
	needsTag(t)
	run := func(t *testing.T, seed uint64) {
		t.Helper()
		p := planOf(seed)
		violations, trace := simulate(t, p, plant{})
		if os.Getenv("FANFARE_TEST_SEED") != "" && testing.Verbose() {
			t.Logf("%s\n%s", p.describe(), strings.Join(trace, "\n"))
		}
		if len(violations) > 0 {
			t.Errorf("%d promises are broken:\n  %s\n%s\n%s\nrun it alone: FANFARE_TEST_SEED=%d go test -tags synctests ./pipeline/simulation -run 'TestSimulation$' -count 10",
				len(violations), strings.Join(violations, "\n  "), p.describe(), strings.Join(trace, "\n"), seed)
		}
	}
	if text := os.Getenv("FANFARE_TEST_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		run(t, seed)
		return
	}
	var first, seeds uint64 = 1, 150
	budget := time.Minute
	for name, to := range map[string]*uint64{"FANFARE_TEST_FIRST_SEED": &first, "FANFARE_TEST_SEEDS": &seeds} {
		if text := os.Getenv(name); text != "" {
			var err error
			if *to, err = strconv.ParseUint(text, 10, 64); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if text := os.Getenv("FANFARE_TEST_FOR"); text != "" {
		var err error
		if budget, err = time.ParseDuration(text); err != nil {
			t.Fatalf("FANFARE_TEST_FOR: %v", err)
		}
	}
	var next, ran atomic.Uint64
	began := time.Now()
	next.Store(first)
	t.Run("seeds", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(worker), func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1) - 1; seed < first+seeds && time.Since(began) < budget; seed = next.Add(1) - 1 {
					run(t, seed)
					ran.Add(1)
				}
			})
		}
	})
	t.Logf("%d seeds in %s", ran.Load(), time.Since(began).Round(time.Second))
}
