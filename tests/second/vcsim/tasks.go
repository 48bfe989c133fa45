package main

import (
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// The simulator's tasks are over before their method answers. Those on a VM's snapshots are begun here instead: queued,
// running and then ended, each step an update that waiting collectors see. A VM has one at a time, as with hosts.

type outcome struct {
	result types.AnyType
	fault  types.BaseMethodFault
	text   string
}

func (l *lab) begin(
	vm *simulator.VirtualMachine, method, description string, work func() outcome,
) types.ManagedObjectReference {
	task := simulator.CreateTask(vm, method, nil)
	simulator.Map.WithLock(task, func() {
		task.Info.Name, task.Info.EntityName, task.Info.DescriptionId = method, vm.Name, description
	})
	simulator.Map.WithLock(vm, func() {
		recent := append(append([]types.ManagedObjectReference{}, vm.RecentTask...), task.Self)
		simulator.Map.Update(vm, []types.PropertyChange{{Name: "recentTask", Val: recent}})
	})
	go l.run(vm, task, method, work)
	return task.Self
}

func (l *lab) run(vm *simulator.VirtualMachine, task *simulator.Task, method string, work func() outcome) {
	started := time.Now()
	update(task, map[string]types.AnyType{"info.startTime": started, "info.state": types.TaskInfoStateRunning})
	ended := outcome{}
	if other, taken := l.take(vm.Self, task.Self); taken {
		ended = outcome{fault: &types.TaskInProgress{Task: other}, text: "Another task is already in progress."}
	} else {
		var spoilt bool
		if ended, spoilt = l.befall(method, vm.Self); !spoilt {
			ended = work()
		}
		l.release(vm.Self)
	}
	changes := map[string]types.AnyType{"info.completeTime": time.Now()}
	if ended.fault != nil {
		changes["info.error"] = types.LocalizedMethodFault{Fault: ended.fault, LocalizedMessage: ended.text}
		changes["info.state"] = types.TaskInfoStateError
	} else {
		changes["info.result"] = ended.result
		changes["info.state"] = types.TaskInfoStateSuccess
	}
	update(task, changes)
}

func update(task *simulator.Task, values map[string]types.AnyType) {
	var changes []types.PropertyChange
	for _, name := range []string{ // the state last: who sees the end sees all of it
		"info.startTime", "info.completeTime", "info.result", "info.error", "info.state",
	} {
		if value, ok := values[name]; ok && value != nil {
			changes = append(changes, types.PropertyChange{Name: name, Val: value})
		}
	}
	simulator.Map.WithLock(task, func() { simulator.Map.Update(task, changes) })
}

func (l *lab) take(vm, task types.ManagedObjectReference) (types.ManagedObjectReference, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	other, taken := l.busy[vm]
	if !taken {
		l.busy[vm] = task
	}
	return other, taken
}

func (l *lab) release(vm types.ManagedObjectReference) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.busy, vm)
}

// createSnapshot lets the simulator make one, and moves the disks on.
func (l *lab) createSnapshot(vm *simulator.VirtualMachine, asked *types.CreateSnapshot_Task) outcome {
	running := vm.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	on := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
	if asked.Quiesce && on && !running {
		return outcome{
			fault: &types.ApplicationQuiesceFault{},
			text:  "An error occurred while quiescing the virtual machine. VMware Tools is not running.",
		}
	}
	request := *asked
	request.Quiesce = asked.Quiesce && on // a VM that is off is at rest, and hosts do not call that quiesced
	var ended outcome
	simulator.Map.WithLock(vm, func() {
		body := vm.CreateSnapshotTask(&request).(*methods.CreateSnapshot_TaskBody)
		ended = outcomeOf(body.Res.Returnval)
		if ref, ok := ended.result.(types.ManagedObjectReference); ok {
			l.froze(vm, ref)
		}
	})
	return ended
}

// removeSnapshot lets the simulator take one away, and merges its disks if that is asked for.
func (l *lab) removeSnapshot(vm *simulator.VirtualMachine, asked *types.RemoveSnapshot_Task) outcome {
	snapshot, ok := simulator.Map.Get(asked.This).(*simulator.VirtualMachineSnapshot)
	if !ok {
		return outcome{fault: &types.ManagedObjectNotFound{Obj: asked.This}, text: "The object has already been deleted"}
	}
	var ended outcome
	simulator.Map.WithLock(snapshot, func() {
		context := &simulator.Context{Map: simulator.Map}
		body := snapshot.RemoveSnapshotTask(context, asked).(*methods.RemoveSnapshot_TaskBody)
		ended = outcomeOf(body.Res.Returnval)
	})
	if ended.fault == nil {
		simulator.Map.WithLock(vm, func() { l.thawed(vm, asked.Consolidate) })
	}
	return ended
}

func (l *lab) removeAll(vm *simulator.VirtualMachine, asked *types.RemoveAllSnapshots_Task) outcome {
	var ended outcome
	simulator.Map.WithLock(vm, func() {
		body := vm.RemoveAllSnapshotsTask(&simulator.Context{Map: simulator.Map}, asked)
		ended = outcomeOf(body.(*methods.RemoveAllSnapshots_TaskBody).Res.Returnval)
		l.thawed(vm, asked.Consolidate)
	})
	return ended
}

// outcomeOf is what became of a task of the simulator's own, which is over by now.
func outcomeOf(ref types.ManagedObjectReference) outcome {
	inner := simulator.Map.Get(ref).(*simulator.Task)
	if failed := inner.Info.Error; failed != nil {
		return outcome{fault: failed.Fault, text: failed.LocalizedMessage}
	}
	return outcome{result: inner.Info.Result}
}
