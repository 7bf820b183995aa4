package rpc

import (
	"testing"
	"time"

	pb "github.com/menshen-io/menshen/proto/menshen/v1"
)

// An erasure is never told of by neither: its receipt is listed, or counted as
// pending, in its tenant alone.
func TestPendingReceiptsAreCounted(t *testing.T) {
	w := newWorld(t)
	hall := "tenants/fair/scopes/hall-a"
	_, err := w.enroll("enroller").Enroll(w.ctx(), w.enrollment("v-1", cropOf(1, 0)))
	w.ok(err)
	_, err = w.enroll("enroller").DeleteSubject(w.ctx(), &pb.DeleteSubjectRequest{Name: hall + "/subjects/v-1"})
	w.ok(err)
	list := func(name, scope string) (listed, pending int64) {
		t.Helper()
		got, err := w.events(name).ListReceipts(w.ctx(), &pb.ListReceiptsRequest{Scope: scope})
		w.ok(err)
		return int64(len(got.GetReceipts())), got.GetPendingCount()
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		for name, scope := range map[string]string{"operator": "", "auditor": hall, "enroller": ""} {
			if listed, pending := list(name, scope); listed+pending == 0 {
				t.Fatalf("%s is told of no erasure", name)
			}
		}
		for name, scope := range map[string]string{"operator": "tenants/fair/scopes/hall-b", "gym operator": ""} {
			if listed, pending := list(name, scope); listed+pending > 0 {
				t.Fatalf("%s sees %d listed, %d pending of somebody else", name, listed, pending)
			}
		}
		if listed, pending := list("operator", ""); listed == 1 && pending == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the receipt did not come")
		}
	}
}
