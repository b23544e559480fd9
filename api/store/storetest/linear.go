package storetest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"fanfare/api/store"
	"fanfare/schemas"
)

// history records calls of several processes with the times at which they began and ended.
type history struct {
	mu    sync.Mutex
	ops   []porcupine.Operation
	clock int64
}

func (h *history) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

// call makes a call and records it.
func (h *history) call(process int, input any, f func() any) {
	began := h.tick()
	output := f()
	ended := h.tick()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: process, Input: input, Call: began, Output: output, Return: ended})
}

// check fails the test unless the history is one that calls without any overlap could have made.
func (h *history) check(e *env, model *porcupine.Model) {
	e.Helper()
	switch porcupine.CheckOperationsTimeout(*model, h.ops, time.Minute) {
	case porcupine.Illegal:
		for _, op := range h.ops {
			e.Log(op.ClientId, op.Call, op.Return, model.DescribeOperation(op.Input, op.Output))
		}
		e.Error("no order of the calls gives these answers")
	case porcupine.Unknown:
		e.Log("the history is too long to judge")
	case porcupine.Ok:
	}
}

type balanceCall struct {
	what   string // top up, withdraw, read
	micros uint64
}

type balanceAnswer struct {
	balance store.Balance
	refused bool
}

// balanceModel is a purse: a withdrawal of more than it has is refused.
var balanceModel = porcupine.Model{
	Init: func() any { return uint64(100) },
	Step: func(state, input, output any) (bool, any) {
		have, in, out := state.(uint64), input.(balanceCall), output.(balanceAnswer)
		switch in.what {
		case "top up":
			have += in.micros
		case "withdraw":
			if out.refused {
				return in.micros > have, have
			}
			if in.micros > have {
				return false, have
			}
			have -= in.micros
		}
		return out.balance == store.Balance{Available: have}, have
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}

type moveCall struct {
	version uint64
	to      schemas.State
}

type moveAnswer struct {
	version uint64
	refused bool
}

// moveModel is a register with a version: a change that was decided on an older version is refused. The test gives Init.
var moveModel = porcupine.Model{
	Step: func(state, input, output any) (bool, any) {
		at, in, out := state.(moveAnswer), input.(moveCall), output.(moveAnswer)
		if out.refused {
			return in.version != at.version, at
		}
		return in.version == at.version && out.version == in.version+1, moveAnswer{version: out.version}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}

// Processes that act at the same time see the store as if each call were made alone, at an instant between its begin
// and its end (porcupine).
var linearTests = []test{
	{"balance", func(e *env) {
		t := e.limited("acme", 100)
		processes := []*store.Store{e.s, e.open(), e.open()}
		var h history
		var all sync.WaitGroup
		for i, s := range processes {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			all.Go(func() {
				for range 12 {
					in := balanceCall{[]string{"top up", "withdraw", "withdraw", "read"}[rng.IntN(4)], uint64(1 + rng.IntN(60))}
					h.call(i, in, func() any {
						var out balanceAnswer
						var err error
						switch in.what {
						case "top up":
							out.balance, err = s.TopUp(e.Context(), t.ID, in.micros, "card")
						case "withdraw":
							out.balance, err = s.Withdraw(e.Context(), t.ID, in.micros, "back", user)
						default:
							out.balance, err = s.Balance(e.Context(), t.ID)
						}
						if _, out.refused = errors.AsType[*store.CreditError](err); !out.refused && err != nil {
							e.Error(err)
						}
						return out
					})
				}
			})
		}
		all.Wait()
		h.check(e, &balanceModel)
		checkLedger(e, t)
	}},
	{"transitions", func(e *env) {
		t := e.tenant("acme")
		c := e.confirm(e.campaign(t, "c", e.list(t, "l", mobile(1))), 1000)
		newest, err := e.s.Campaign(e.Context(), t.ID, c.ID())
		e.must(err)
		model := moveModel
		model.Init = func() any { return moveAnswer{version: newest.Version} }
		processes := []*store.Store{e.s, e.open(), e.open()}
		var h history
		var all sync.WaitGroup
		for i, s := range processes {
			all.Go(func() {
				version := newest.Version
				for range 12 {
					// What moves a campaign to and fro: a guard suspends it, and resumes it.
					change := schemas.Change{Tenant: t.ID, Campaign: newest.ID(), Version: version, To: schemas.StateSuspended, Trigger: schemas.TriggerSuspend, Actor: schemas.ActorGuard, Reason: "test"}
					if (version-newest.Version)%2 == 1 {
						change.To, change.Trigger = schemas.StatePreparing, schemas.TriggerResume
					}
					h.call(i, moveCall{version, change.To}, func() any {
						got, err := s.Apply(e.Context(), change)
						if err != nil && !errors.Is(err, schemas.ErrConflict) {
							e.Error(err)
						}
						return moveAnswer{got, err != nil}
					})
					row, err := s.Campaign(e.Context(), t.ID, c.ID())
					if err != nil {
						e.Error(err)
						return
					}
					version = cmp.Or(row.Version, version)
				}
			})
		}
		all.Wait()
		h.check(e, &model)
	}},
}
