package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

var giveUpTests = []test{
	// A caller may cancel its context at any moment, also while a transaction begins or commits. The store must report
	// success exactly if the change is saved, and later transactions must work as before.
	{"callers that give up at any instant", func(e *env) {
		t := e.tenant("acme")
		began := time.Now()
		_, err := e.s.CreateList(e.Context(), t.ID, "first", false)
		e.must(err)
		whole := time.Since(began)
		rng := rand.New(rand.NewPCG(1, 1))
		gaveUp := 0
		for i := range 1000 {
			ctx, cancel := context.WithCancel(e.Context())
			timer := time.AfterFunc(time.Duration(rng.Int64N(int64(whole))), cancel)
			name := fmt.Sprintf("list %d", i)
			_, err := e.s.CreateList(ctx, t.ID, name, false)
			timer.Stop()
			cancel()
			_, missing := e.s.FindList(e.Context(), t.ID, name)
			switch {
			case missing != nil && !errors.Is(missing, schemas.ErrNotFound):
				e.Fatalf("list %d: %v", i, missing)
			case err == nil && missing != nil:
				e.Fatalf("list %d: the store says it is saved, and it is missing", i)
			case err != nil && missing == nil && !errors.Is(err, store.ErrUnknown):
				e.Fatalf("list %d: got error %v, and the list is there", i, err)
			}
			if err != nil {
				gaveUp++
			}
		}
		if gaveUp == 0 {
			e.Error("no caller gave up: nothing was tested")
		}
		_, err = e.s.CreateList(e.Context(), t.ID, "last", false)
		e.must(err)
	}},
}
