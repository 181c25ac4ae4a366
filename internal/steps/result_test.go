package steps

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/closeouthq/closeout/activities"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/pricing"
	"github.com/closeouthq/closeout/session"
)

// A lost ledger is restored from the results of steps.
func TestResultsHaveAllFieldsOfTheLedger(t *testing.T) {
	at := time.UnixMilli(1e12).UTC()
	bill := ledger.Bill{
		ID: uuid.New(), Session: session.Session{ID: session.ID{AppID: 1, RoomSessionID: 1<<64 - 1}, RoomID: "lobby", CloseReason: "2", RoomCloseTime: at, Reconciled: true},
		Usage: session.Usage{Start: at, End: at, StartFrom: "room_login", EndFrom: "room_close", Participants: 1, Stays: 2, Millis: 3, Seconds: 4, Minutes: 5,
			Estimated: session.NoLogin | session.NoLogout},
		Charge: pricing.Charge{Price: pricing.Price{Currency: "EUR", PerMinute: 6}, Function: true, Amount: 7, Lines: 13},
	}
	adjustment := ledger.Adjustment{ID: uuid.New(), Number: 8, Bill: bill, Difference: pricing.Change{Millis: 9, Seconds: 10, Minutes: 11, Amount: 12, Lines: 14}, MadeAt: at}

	got := decode[ledger.Adjustment](t, activities.Adjusted{Adjustment: adjustment, Posted: true})
	if got != adjustment {
		t.Errorf("ledger has %+v, result %+v", adjustment, got)
	}
	if got := decode[ledger.Bill](t, activities.Bill{Bill: bill, Posted: true}); got != bill {
		t.Errorf("ledger has %+v, result %+v", bill, got)
	}
}

func decode[T any](t *testing.T, result any) (decoded T) {
	t.Helper()
	b, err := json.Marshal(result)
	if err == nil {
		err = json.Unmarshal(b, &decoded)
	}
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

func TestStandardRunsEachNamedStep(t *testing.T) {
	named, run := reflect.TypeFor[*activities.Steps](), reflect.TypeFor[*Standard]()
	if run.NumMethod() != named.NumMethod() {
		t.Errorf("%d steps are named, %d run", named.NumMethod(), run.NumMethod())
	}
	for i := range named.NumMethod() {
		want := named.Method(i)
		got, ok := run.MethodByName(want.Name)
		if !ok {
			t.Errorf("%s is named and doesn't run", want.Name)
			continue
		}
		name, impl := reflect.ValueOf(activities.Standard).Method(i).Type(), reflect.ValueOf(&Standard{&Billing{}, &Recordings{}}).MethodByName(got.Name).Type()
		if name != impl {
			t.Errorf("%s is named as %v and run as %v", want.Name, name, impl)
		}
	}
}
