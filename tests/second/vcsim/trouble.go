package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// Where trouble strikes: instead of a method, after it was carried out, in the task that it began; and what it is, in
// the words of the lab's own vCenter (vcbproxy/lab/vcenter/faults.py).
const (
	atCall   = "call"
	atAnswer = "answer"
	atTask   = "task"

	late        = "late"
	faulty      = "fault"
	dropped     = "drop"
	broken      = "break"
	trickling   = "trickle"
	unavailable = "unavailable"
	expired     = "expire"
	restarting  = "restart"
	hanging     = "hang"
	half        = "half"
)

const trickles = 20 // pieces of an answer that trickles

type trouble struct {
	Method, What, Where string
	On                  string          // only about this object, by its id or its type
	Fault, Text         string          // a fault of the schema by its name, and what it says
	Facts               json.RawMessage // its properties
	Seconds             float64
	Times, After        int // no times: always
}

// check says whether that can be done.
func (t *trouble) check() error {
	switch t.What {
	case late, dropped, broken, trickling, unavailable, expired, restarting, hanging, half:
		return nil
	case faulty:
		kind, ok := types.TypeFunc()(t.Fault)
		if !ok {
			return fmt.Errorf("no fault %s in this schema", t.Fault)
		}
		made := reflect.New(kind).Interface()
		if _, ok := made.(types.BaseMethodFault); !ok {
			return fmt.Errorf("%s is no fault", t.Fault)
		}
		return json.Unmarshal(t.Facts, made)
	}
	return fmt.Errorf("no trouble %q here", t.What)
}

// fault makes it; what the schema demands and nobody gave is filled in.
func (t *trouble) fault(about types.ManagedObjectReference) types.BaseMethodFault {
	kind, _ := types.TypeFunc()(t.Fault)
	value := reflect.New(kind)
	_ = json.Unmarshal(t.Facts, value.Interface()) // it went well in check
	missing := map[string]types.ManagedObjectReference{
		"Object": about, "Obj": about, "Task": {Type: "Task", Value: "task-unknown"},
	}
	for name, ref := range missing {
		field := value.Elem().FieldByName(name)
		if field.IsValid() && field.Type() == reflect.TypeOf(ref) && field.IsZero() {
			field.Set(reflect.ValueOf(ref))
		}
	}
	return value.Interface().(types.BaseMethodFault)
}

func (t *trouble) delay() time.Duration { return time.Duration(t.Seconds * float64(time.Second)) }

// order takes trouble into stock.
func (l *lab) order(one *trouble) error {
	if err := one.check(); err != nil {
		return err
	}
	if one.Times == 0 {
		one.Times = -1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders = append(l.orders, one)
	return nil
}

// calm lets all go well from now on; what hangs goes on.
func (l *lab) calm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders, l.calls = nil, map[string]int{}
	close(l.calmed)
	l.calmed = make(chan struct{})
}

// ordered is the trouble in stock for a call, if there is any; it is used up by that.
func (l *lab) ordered(method, where string, about types.ManagedObjectReference) *trouble {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, order := range l.orders {
		fits := (order.Method == method || order.Method == "*") &&
			(order.On == "" || order.On == about.Value || order.On == about.Type)
		if !fits || order.Where != where || order.Times == 0 {
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
func (l *lab) strike(w http.ResponseWriter, asked *simulator.Method, where string, made *httptest.ResponseRecorder) bool {
	order := l.ordered(asked.Name, where, asked.This)
	if order == nil {
		return false
	}
	if order.What != trickling && order.What != restarting {
		time.Sleep(order.delay())
	}
	switch order.What {
	case faulty:
		sendFault(w, order.Text, order.fault(asked.This))
	case dropped:
		panic(http.ErrAbortHandler) // the server closes the connection without a word
	case unavailable:
		w.WriteHeader(http.StatusServiceUnavailable)
	case broken:
		begin(w, made)
		_, _ = w.Write(made.Body.Bytes()[:made.Body.Len()/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case trickling:
		body := made.Body.Bytes()
		begin(w, made)
		for at := 0; at < trickles; at++ {
			_, _ = w.Write(body[at*len(body)/trickles : (at+1)*len(body)/trickles])
			w.(http.Flusher).Flush()
			time.Sleep(order.delay() / trickles)
		}
	case expired:
		if err := l.expire(); err != nil {
			panic(err)
		}
		notAuthenticated(w, asked.This)
	case restarting:
		if err := l.restart(order.delay()); err != nil {
			panic(err)
		}
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}

// restart forgets sessions, with their collectors and views, and tasks; what tasks do goes on.
func (l *lab) restart(down time.Duration) error {
	if err := l.expire(); err != nil {
		return err
	}
	instance := simulator.Map.Get(vim25.ServiceInstance).(*simulator.ServiceInstance)
	manager := simulator.Map.Get(*instance.Content.TaskManager).(*simulator.TaskManager)
	var forgotten []types.ManagedObjectReference
	simulator.Map.WithLock(manager, func() {
		forgotten = manager.RecentTask
		manager.RecentTask = nil
	})
	for _, task := range forgotten {
		simulator.Map.Remove(task)
	}
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		simulator.Map.WithLock(vm, func() { vm.RecentTask = nil })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.downUntil = time.Now().Add(down)
	return nil
}

func (l *lab) down() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.downUntil)
}

// befall does what is ordered for a task, and returns how it ends because of that, if it does.
func (l *lab) befall(method string, vm types.ManagedObjectReference) (outcome, bool) {
	order := l.ordered(method, atTask, vm)
	if order == nil {
		return outcome{}, false
	}
	time.Sleep(order.delay())
	switch order.What {
	case faulty:
		return outcome{fault: order.fault(vm), text: order.Text}, true
	case hanging:
		l.mu.Lock()
		calmed := l.calmed
		l.mu.Unlock()
		<-calmed
	case half:
		return outcome{}, true
	}
	return outcome{}, false
}
