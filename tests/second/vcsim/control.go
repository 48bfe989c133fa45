package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
)

// control is what a test may do to the manager behind its clients' backs.
//
//	POST /_lab/trouble  {"Method": "CreateSnapshot_Task", "Where": "task", "What": "fault", "Fault": "SnapshotFault", …}
//	POST /_lab/calm     no more trouble, no calls counted
//	GET  /_lab/calls    how often each method was called
//	POST /_lab/expire   every session ends
//	GET  /_lab/snapshots?vm=vm1
//	POST /_lab/write    {"VM": "vm1", "Disk": 2000, "Starts": [0], "Length": 512}: a guest wrote there
func (l *lab) control(w http.ResponseWriter, r *http.Request) {
	var answer interface{} = struct{}{}
	var err error
	switch r.URL.Path {
	case "/_lab/trouble":
		wanted := &trouble{Where: atCall}
		if err = json.NewDecoder(r.Body).Decode(wanted); err == nil {
			err = l.order(wanted)
		}
	case "/_lab/calm":
		l.calm()
	case "/_lab/calls":
		l.mu.Lock()
		counted := map[string]int{}
		for name, count := range l.calls {
			counted[name] = count
		}
		l.mu.Unlock()
		answer = counted
	case "/_lab/expire":
		err = l.expire()
	case "/_lab/write":
		var wrote struct {
			VM     string
			Disk   int32
			Starts []int64
			Length int64
		}
		if err = json.NewDecoder(r.Body).Decode(&wrote); err == nil {
			err = l.wrote(wrote.VM, wrote.Disk, wrote.Starts, wrote.Length)
		}
	case "/_lab/snapshots":
		answer, err = names(r.URL.Query().Get("vm"))
	default:
		err = fmt.Errorf("nothing is at %s", r.URL.Path)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// expire terminates all sessions but its own, as an administrator does it, and logs out.
func (l *lab) expire() error {
	ctx := context.Background()
	client, err := l.loggedIn(ctx)
	if err != nil {
		return err
	}
	manager := session.NewManager(client)
	own, err := manager.UserSession(ctx)
	if err != nil {
		return err
	}
	var known mo.SessionManager
	reader := property.DefaultCollector(client)
	if err := reader.RetrieveOne(ctx, manager.Reference(), []string{"sessionList"}, &known); err != nil {
		return err
	}
	var others []string
	for _, one := range known.SessionList {
		if one.Key != own.Key {
			others = append(others, one.Key)
		}
	}
	if len(others) > 0 {
		if err := manager.TerminateSession(ctx, others); err != nil {
			return err
		}
	}
	return manager.Logout(ctx)
}

// names lists a VM's snapshots, parents first.
func names(vm string) ([]string, error) {
	found := []string{}
	live, err := machineNamed(vm)
	if err != nil || live.Snapshot == nil {
		return found, err
	}
	waiting := live.Snapshot.RootSnapshotList
	for len(waiting) > 0 {
		found = append(found, waiting[0].Name)
		waiting = append(waiting[1:len(waiting):len(waiting)], waiting[0].ChildSnapshotList...)
	}
	return found, nil
}

func (l *lab) wrote(name string, disk int32, starts []int64, length int64) error {
	vm, err := machineNamed(name)
	if err != nil {
		return err
	}
	known := l.chainsOf(vm.Self)
	known.mu.Lock()
	defer known.mu.Unlock()
	chain := known.disks[disk]
	if chain == nil {
		return fmt.Errorf("%s has no disk %d", name, disk)
	}
	for _, start := range starts {
		chain.tracking.write(start, length)
	}
	return nil
}

func machineNamed(name string) (*simulator.VirtualMachine, error) {
	for _, entity := range simulator.Map.All("VirtualMachine") {
		if vm, ok := entity.(*simulator.VirtualMachine); ok && vm.Name == name {
			return vm, nil
		}
	}
	return nil, fmt.Errorf("no virtual machine %q", name)
}
