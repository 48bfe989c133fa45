package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// When trouble strikes: instead of a method, after it was carried out, in the task that it began.
const (
	atCall   = "call"
	atAnswer = "answer"
	atTask   = "task"
)

// trouble is one thing that goes wrong; without a fault or a drop it is only a delay.
type trouble struct {
	Method, Where, Moref string
	Fault, Text          string          // a fault of the schema by its name, and what it says
	Facts                json.RawMessage // its properties
	Drop                 bool
	Seconds              float64
	Times, After         int
}

// check says whether such a fault is known.
func (t *trouble) check() error {
	if t.Fault == "" {
		return nil
	}
	kind, ok := types.TypeFunc()(t.Fault)
	if !ok {
		return fmt.Errorf("no fault %s in this schema", t.Fault)
	}
	made := reflect.New(kind).Interface()
	if _, ok := made.(types.BaseMethodFault); !ok {
		return fmt.Errorf("%s is no fault", t.Fault)
	}
	if len(t.Facts) > 0 {
		return json.Unmarshal(t.Facts, made)
	}
	return nil
}

func (t *trouble) wait() {
	if t != nil {
		time.Sleep(time.Duration(t.Seconds * float64(time.Second)))
	}
}

func (t *trouble) fails() bool { return t != nil && t.Fault != "" }

// fault makes it; what the schema demands and nobody gave is filled with the object it happened to.
func (t *trouble) fault(about types.ManagedObjectReference) types.BaseMethodFault {
	kind, _ := types.TypeFunc()(t.Fault)
	value := reflect.New(kind)
	if len(t.Facts) > 0 {
		_ = json.Unmarshal(t.Facts, value.Interface()) // it went well in check
	}
	for _, name := range []string{"Object", "Obj", "Task"} {
		field := value.Elem().FieldByName(name)
		if field.IsValid() && field.Type() == reflect.TypeOf(about) && field.IsZero() {
			field.Set(reflect.ValueOf(about))
		}
	}
	return value.Interface().(types.BaseMethodFault)
}

// ordered is the trouble in stock for a call, if there is any; it is used up by that.
func (l *lab) ordered(method, where string, about types.ManagedObjectReference) *trouble {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, order := range l.orders {
		fits := (order.Method == method || order.Method == "*") && (order.Moref == "" || order.Moref == about.Value)
		if !fits || order.Where != where || order.Times <= 0 {
			continue
		}
		if order.After > 0 {
			order.After--
			continue
		}
		order.Times--
		return order
	}
	return nil
}

// strike does what is ordered for a call, and tells whether that was its answer.
func (l *lab) strike(w http.ResponseWriter, asked *simulator.Method, where string) bool {
	ordered := l.ordered(asked.Name, where, asked.This)
	ordered.wait()
	if ordered != nil && ordered.Drop {
		if hijacker, ok := w.(http.Hijacker); ok {
			if connection, _, err := hijacker.Hijack(); err == nil {
				_ = connection.Close()
			}
		}
		return true
	}
	if ordered.fails() {
		sendFault(w, ordered.Text, ordered.fault(asked.This))
		return true
	}
	return false
}
