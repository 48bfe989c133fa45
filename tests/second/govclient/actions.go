package main

import (
	"fmt"
	"reflect"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// faultOf is a fault's type and message, as this client sorts them; "" for none.
func faultOf(err error) string {
	if err == nil {
		return ""
	}
	name := func(fault interface{}) string {
		kind := reflect.TypeOf(fault)
		if kind.Kind() == reflect.Ptr {
			kind = kind.Elem()
		}
		return kind.Name()
	}
	if soap.IsSoapFault(err) {
		return "fault " + name(soap.ToSoapFault(err).VimFault())
	}
	if soap.IsVimFault(err) {
		return "fault " + name(soap.ToVimFault(err))
	}
	if failed, ok := err.(task.Error); ok {
		return "task " + name(failed.Fault())
	}
	return fmt.Sprintf("%T %v", err, err)
}

// machine takes a snapshot, looks at it, and removes it.
func (s *survey) machine(name string) {
	vm := s.object(name)
	yes := true
	begun, err := vm.CreateSnapshot(s.ctx, "second client", "a ü & <b> \"c\"", false, true)
	must(err)
	info, err := begun.WaitForResult(s.ctx, nil) // a collector of its own, a filter, updates
	must(err)
	ref, ok := info.Result.(types.ManagedObjectReference)
	if !ok {
		panic(fmt.Sprintf("a task's result is a %T", info.Result))
	}
	found, err := vm.FindSnapshot(s.ctx, "second client")
	must(err)
	var frozen mo.VirtualMachineSnapshot
	must(property.DefaultCollector(s.client).RetrieveOne(s.ctx, ref, nil, &frozen))
	live := s.vm(name)
	told := row{
		"task": row{
			"state": info.State, "description": info.DescriptionId, "entity": info.Entity.Value,
			"entity name": info.EntityName, "ended": info.CompleteTime != nil, "result": ref.Type,
		},
		"found": found.Value == ref.Value, "tree": snapshots(live.Snapshot), "of": frozen.Vm.Value,
		"frozen": disksOf(frozen.Config.Hardware.Device), "live": disksOf(live.Config.Hardware.Device),
	}
	removal, err := vm.RemoveSnapshot(s.ctx, "second client", false, &yes)
	must(err)
	ended, err := removal.WaitForResult(s.ctx, nil)
	must(err)
	after := s.vm(name)
	told["removal"] = row{"state": ended.State, "entity": ended.Entity.Value, "description": ended.DescriptionId}
	told["tree after"], told["live after"] = snapshots(after.Snapshot), disksOf(after.Config.Hardware.Device)
	gone := property.DefaultCollector(s.client).RetrieveOne(s.ctx, ref, nil, &frozen)
	told["gone"] = faultOf(gone)
	s.told["snapshot"] = told
}

func disksOf(devices object.VirtualDeviceList) []row {
	found := []row{}
	for _, device := range devices.SelectByType((*types.VirtualDisk)(nil)) {
		found = append(found, disk(devices, device.(*types.VirtualDisk)))
	}
	return found
}

// tracking turns change tracking on, and asks what changed between two snapshots.
func (s *survey) tracking(name string) {
	vm := s.object(name)
	on := true
	begun, err := vm.Reconfigure(s.ctx, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &on})
	must(err)
	must(begun.Wait(s.ctx))
	begun, err = vm.CreateSnapshot(s.ctx, "tracked", "", false, false)
	must(err)
	info, err := begun.WaitForResult(s.ctx, nil)
	must(err)
	ref := info.Result.(types.ManagedObjectReference)
	var frozen mo.VirtualMachineSnapshot
	must(property.DefaultCollector(s.client).RetrieveOne(s.ctx, ref, []string{"config"}, &frozen))
	told := []row{}
	devices := object.VirtualDeviceList(frozen.Config.Hardware.Device)
	for _, device := range devices.SelectByType((*types.VirtualDisk)(nil)) {
		d := device.(*types.VirtualDisk)
		id := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo).ChangeId
		ask := func(since string) (*types.QueryChangedDiskAreasResponse, error) {
			return methods.QueryChangedDiskAreas(s.ctx, s.client, &types.QueryChangedDiskAreas{
				This: vm.Reference(), Snapshot: &ref, DeviceKey: d.Key, ChangeId: since,
			})
		}
		all, err := ask("*")
		must(err)
		since, err := ask(id)
		must(err)
		_, wrong := ask("52 00/1")
		told = append(told, row{
			"id": id, "areas": len(all.Returnval.ChangedArea), "length": all.Returnval.Length,
			"since": len(since.Returnval.ChangedArea), "wrong id": faultOf(wrong),
		})
	}
	removal, err := vm.RemoveAllSnapshot(s.ctx, &on)
	must(err)
	must(removal.Wait(s.ctx))
	off := false
	begun, err = vm.Reconfigure(s.ctx, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &off})
	must(err)
	must(begun.Wait(s.ctx))
	s.told["tracking"] = row{"disks": told, "left": snapshots(s.vm(name).Snapshot)}
}

// power switches the VM off and on, and waits for updates of a property meanwhile.
func (s *survey) power(name string) {
	vm := s.object(name)
	seen := []types.VirtualMachinePowerState{}
	begun := false
	collector := property.DefaultCollector(s.client)
	err := property.Wait(s.ctx, collector, vm.Reference(), []string{"runtime.powerState"}, func(c []types.PropertyChange) bool {
		for _, change := range c {
			seen = append(seen, change.Val.(types.VirtualMachinePowerState))
		}
		if !begun {
			begun = true
			_, err := vm.PowerOff(s.ctx)
			must(err)
		}
		return len(seen) == 2
	})
	must(err)
	again, err := vm.PowerOff(s.ctx)
	must(err)
	s.told["powered off twice"] = faultOf(again.Wait(s.ctx))
	on, err := vm.PowerOn(s.ctx)
	must(err)
	must(on.Wait(s.ctx))
	must(vm.WaitForPowerState(s.ctx, types.VirtualMachinePowerStatePoweredOn))
	s.told["power"] = seen
}

// faults makes mistakes, and sees how they are answered.
func (s *survey) faults(name string) {
	vm := s.object(name)
	collector := property.DefaultCollector(s.client)
	nobody := types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-9999"}
	var into mo.VirtualMachine
	_, unknown := methods.CreateSnapshot_Task(s.ctx, s.client, &types.CreateSnapshot_Task{This: nobody, Name: "x"})
	_, token := methods.ContinueRetrievePropertiesEx(s.ctx, s.client, &types.ContinueRetrievePropertiesEx{
		This: s.client.ServiceContent.PropertyCollector, Token: "no such token",
	})
	s.told["faults"] = row{
		"no such vm":       faultOf(collector.RetrieveOne(s.ctx, nobody, []string{"name"}, &into)),
		"no such receiver": faultOf(unknown),
		"no such property": faultOf(collector.RetrieveOne(s.ctx, vm.Reference(), []string{"nonsense"}, &into)),
		"no such token":    faultOf(token),
	}
}
