package simulation

import (
	"context"
	"database/sql/driver"
	"errors"
	"reflect"
	"sync/atomic"
	"unsafe"

	"github.com/closeouthq/closeout/internal/ledger"
)

// A ledgerFault is what happens to an operation of a ledger's connection.
type ledgerFault int

const (
	noFault   ledgerFault = iota
	failsSoon             // before its effect
	failsLate             // after its effect; a query fails at its first row
	neverEnds             // until the caller gives up
)

// faultyLedger opens the ledger at k.path for a process of a number. In most seeds, its
// connections lose requests and answers. If deadline is true, its callers give up in time.
func (k *worker) faultyLedger(number int, deadline bool) (*ledger.Ledger, error) {
	l, err := ledger.Open("sqlite:" + k.path)
	if err != nil {
		return nil, err
	}
	l.Price = k.ledger.Price
	rate := pick(k.w.chance("ledger fails"), []int{0, 30, 60})
	if rate == 0 {
		return l, nil
	}
	var calls atomic.Int64
	// The connections of the pool come from this field.
	field := reflect.ValueOf(l).Elem().FieldByName("db").Elem().FieldByName("connector")
	c := (*driver.Connector)(unsafe.Pointer(field.UnsafeAddr()))
	*c = faultyConnector{*c, func() ledgerFault {
		chance := k.w.chance("ledger call", number, int(calls.Add(1)))
		if chance.IntN(rate) > 0 {
			return noFault
		}
		if fault := pick(chance, []ledgerFault{failsSoon, failsLate, failsLate, neverEnds}); fault != neverEnds || deadline {
			return fault
		}
		return failsSoon
	}}
	return l, nil
}

var errLedger = errors.New("simulated: the ledger's connection is lost")

type faultyConnector struct {
	driver.Connector
	fault func() ledgerFault
}

func (c faultyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return faultyConn{conn.(sqliteConn), c.fault}, nil
}

// sqliteConn has the methods of the driver's connections that database/sql looks for.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type faultyConn struct {
	sqliteConn
	fault func() ledgerFault
}

func (c faultyConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	switch c.fault() {
	case failsSoon, failsLate:
		return nil, errLedger
	case neverEnds:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	tx, err := c.sqliteConn.BeginTx(ctx, o)
	return faultyTx{tx, c.fault}, err
}

func (c faultyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	fault := c.fault()
	if fault == failsSoon {
		return nil, errLedger
	}
	result, err := c.sqliteConn.ExecContext(ctx, query, args)
	if err == nil && fault != noFault {
		return nil, errLedger
	}
	return result, err
}

func (c faultyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	fault := c.fault()
	if fault == failsSoon {
		return nil, errLedger
	}
	rows, err := c.sqliteConn.QueryContext(ctx, query, args)
	if err == nil && fault != noFault {
		return cutRows{rows}, nil
	}
	return rows, err
}

// cutRows fails when its first row is read.
type cutRows struct{ driver.Rows }

func (cutRows) Next([]driver.Value) error { return errLedger }

type faultyTx struct {
	driver.Tx
	fault func() ledgerFault
}

func (t faultyTx) Commit() error {
	switch t.fault() {
	case failsSoon:
		return errors.Join(errLedger, t.Rollback())
	case failsLate, neverEnds:
		return errors.Join(errLedger, t.Tx.Commit())
	}
	return t.Tx.Commit()
}
