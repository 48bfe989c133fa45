package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// lab is what stands in front of the simulator.
type lab struct {
	service *simulator.Service
	url     *url.URL

	mu     sync.Mutex // of all below
	chains map[types.ManagedObjectReference]*chains
	busy   map[types.ManagedObjectReference]types.ManagedObjectReference // VM → the task that has it
	calls  map[string]int
	orders []*trouble
	calmed chan struct{}

	downUntil time.Time
}

func newLab(service *simulator.Service) *lab {
	return &lab{
		service: service,
		chains:  map[types.ManagedObjectReference]*chains{},
		busy:    map[types.ManagedObjectReference]types.ManagedObjectReference{},
		calls:   map[string]int{},
		calmed:  make(chan struct{}),
	}
}

// Without a session a vCenter answers these alone; the simulator reads properties for anybody.
var free = map[string]bool{"RetrieveServiceContent": true, "Login": true}

const whoAmI = `<?xml version="1.0"?><Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>` +
	`<CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime></Body></Envelope>`

// serve is one request: trouble before it, the method, trouble after it.
func (l *lab) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if l.down() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	asked, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		asked = &simulator.Method{} // the simulator says what is wrong with it
	}
	l.mu.Lock()
	l.calls[asked.Name]++
	l.mu.Unlock()
	if l.strike(w, asked, atCall, nil) {
		return
	}
	answer := httptest.NewRecorder()
	if free[asked.Name] || l.authenticated(r) {
		l.method(answer, r, asked, body)
	} else {
		notAuthenticated(answer, asked.This)
	}
	if l.strike(w, asked, atAnswer, answer) {
		return
	}
	begin(w, answer)
	_, _ = w.Write(answer.Body.Bytes())
}

// begin sends an answer's head, which says how long the answer is.
func begin(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
	w.WriteHeader(answer.Code)
}

func notAuthenticated(w http.ResponseWriter, about types.ManagedObjectReference) {
	fault := &types.NotAuthenticated{NoPermission: types.NoPermission{Object: about, PrivilegeId: "System.View"}}
	sendFault(w, "The session is not authenticated.", fault)
}

// authenticated asks the simulator by a method that it refuses without a session.
func (l *lab) authenticated(r *http.Request) bool {
	return l.forward(r, []byte(whoAmI)).Code == http.StatusOK
}

func (l *lab) forward(r *http.Request, body []byte) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	inner := r.Clone(r.Context())
	inner.Body = io.NopCloser(bytes.NewReader(body))
	l.service.ServeSDK(answer, inner)
	return answer
}

// method carries one out: the few that are ours, or the simulator's.
func (l *lab) method(w *httptest.ResponseRecorder, r *http.Request, asked *simulator.Method, body []byte) {
	switch request := asked.Body.(type) {
	case *types.CreateSnapshot_Task:
		l.onMachine(w, request.This, func(vm *simulator.VirtualMachine) interface{} {
			task := l.begin(vm, "CreateSnapshot_Task", "VirtualMachine.createSnapshot", func() outcome {
				return l.createSnapshot(vm, request)
			})
			return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: task}}
		})
	case *types.RemoveSnapshot_Task:
		l.onSnapshot(w, request.This, func(vm *simulator.VirtualMachine) interface{} {
			task := l.begin(vm, "RemoveSnapshot_Task", "vm.Snapshot.remove", func() outcome {
				return l.removeSnapshot(vm, request)
			})
			return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: task}}
		})
	case *types.RemoveAllSnapshots_Task:
		l.onMachine(w, request.This, func(vm *simulator.VirtualMachine) interface{} {
			task := l.begin(vm, "RemoveAllSnapshots_Task", "VirtualMachine.removeAllSnapshots", func() outcome {
				return l.removeAll(vm, request)
			})
			return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: task}}
		})
	case *types.ConsolidateVMDisks_Task:
		l.onMachine(w, request.This, func(vm *simulator.VirtualMachine) interface{} {
			task := l.begin(vm, "ConsolidateVMDisks_Task", "VirtualMachine.consolidateDisks", func() outcome {
				simulator.Map.WithLock(vm, func() { l.consolidate(vm) })
				return outcome{}
			})
			return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: task}}
		})
	case *types.QueryChangedDiskAreas:
		l.onMachine(w, request.This, func(vm *simulator.VirtualMachine) interface{} {
			var answer *types.DiskChangeInfo
			var fault types.BaseMethodFault
			simulator.Map.WithLock(vm, func() { answer, fault = l.changedAreas(vm, request) })
			if fault != nil {
				return fault
			}
			return &methods.QueryChangedDiskAreasBody{Res: &types.QueryChangedDiskAreasResponse{Returnval: *answer}}
		})
	default:
		l.simulators(w, r, asked.Name, body)
	}
}

// simulators lets the simulator answer; 0.24.2 panics where Fetch asks for a property that is not set.
func (l *lab) simulators(w *httptest.ResponseRecorder, r *http.Request, name string, body []byte) {
	defer func() {
		if reason := recover(); reason != nil {
			if name != "Fetch" && !bytes.Contains(body, []byte("<Fetch ")) {
				panic(reason)
			}
			send(w, http.StatusOK, &struct {
				Res struct{} `xml:"urn:vim25 FetchResponse"`
			}{})
		}
	}()
	*w = *l.forward(r, body)
}

func (l *lab) onMachine(
	w http.ResponseWriter, ref types.ManagedObjectReference, do func(*simulator.VirtualMachine) interface{},
) {
	vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		gone := &types.ManagedObjectNotFound{Obj: ref}
		sendFault(w, "The object has already been deleted or has not been completely created", gone)
		return
	}
	answer := do(vm)
	if fault, failed := answer.(types.BaseMethodFault); failed {
		sendFault(w, "A specified parameter was not correct", fault)
		return
	}
	send(w, http.StatusOK, answer)
}

func (l *lab) onSnapshot(
	w http.ResponseWriter, ref types.ManagedObjectReference, do func(*simulator.VirtualMachine) interface{},
) {
	of := ref
	if snapshot, ok := simulator.Map.Get(ref).(*simulator.VirtualMachineSnapshot); ok {
		of = snapshot.Vm
	}
	l.onMachine(w, of, do)
}
