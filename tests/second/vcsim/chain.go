package main

import (
	"fmt"
	"path"
	"regexp"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// chains are the files behind each disk of one VM. The simulator shows one file for ever; a host goes on to another
// with every snapshot:
//
//	vm1.vmdk ◀── vm1-000001.vmdk ◀── vm1-000002.vmdk     links, the base first, the one that is written last
//	   └ frozen by snapshot-1  └ frozen by snapshot-2
//
// Removing a snapshot merges the link above the frozen one into it, if asked to; what is left is merged by a
// consolidation.
type chains struct {
	mu     sync.Mutex // of this VM's disks; taken inside the simulator's lock of the VM
	number int
	disks  map[int32]*links
	order  []types.ManagedObjectReference // snapshots, oldest first
}

type links struct {
	files    []string
	format   string // of all but the first
	frozen   map[types.ManagedObjectReference]string
	tracking *tracking
}

var deltaSuffix = regexp.MustCompile(`(-\d{6})?\.vmdk$`)

// adopt begins to keep account of a VM's disks.
func (l *lab) adopt(vm *simulator.VirtualMachine, disks []disk) {
	known := &chains{disks: map[int32]*links{}}
	for _, d := range disks {
		known.disks[d.Key] = &links{
			files:    []string{d.Path},
			format:   d.DeltaFormat,
			frozen:   map[types.ManagedObjectReference]string{},
			tracking: newTracking(),
		}
	}
	l.mu.Lock()
	l.chains[vm.Self] = known
	l.mu.Unlock()
}

func (l *lab) chainsOf(vm types.ManagedObjectReference) *chains {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chains[vm]
}

func flat(device types.BaseVirtualDevice) (*types.VirtualDisk, *types.VirtualDiskFlatVer2BackingInfo) {
	disk, ok := device.(*types.VirtualDisk)
	if !ok {
		return nil, nil
	}
	backing, _ := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	return disk, backing
}

func dependent(backing *types.VirtualDiskFlatVer2BackingInfo) bool {
	return backing.DiskMode == string(types.VirtualDiskModePersistent)
}

// froze goes on to new files after a snapshot was made.
func (l *lab) froze(vm *simulator.VirtualMachine, snapshot types.ManagedObjectReference) {
	known := l.chainsOf(vm.Self)
	known.mu.Lock()
	defer known.mu.Unlock()
	known.number++
	known.order = append(known.order, snapshot)
	tracked := vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
	for _, device := range vm.Config.Hardware.Device {
		disk, backing := flat(device)
		if backing == nil || !dependent(backing) {
			continue
		}
		chain := known.disks[disk.Key]
		top := chain.files[len(chain.files)-1]
		chain.frozen[snapshot] = top
		chain.files = append(chain.files, deltaSuffix.ReplaceAllString(top, fmt.Sprintf("-%06d.vmdk", known.number)))
		if tracked {
			chain.tracking.freeze(snapshot)
		}
	}
	known.show(vm)
}

// thawed takes snapshots that are gone out of the chains. The links above those that they froze are merged into them if
// asked for, and no other; what is left is for a consolidation.
func (l *lab) thawed(vm *simulator.VirtualMachine, merge *bool) {
	known := l.chainsOf(vm.Self)
	known.mu.Lock()
	defer known.mu.Unlock()
	var left []types.ManagedObjectReference
	for _, snapshot := range known.order {
		if simulator.Map.Get(snapshot) != nil {
			left = append(left, snapshot)
			continue
		}
		for _, chain := range known.disks {
			file, ok := chain.frozen[snapshot]
			delete(chain.frozen, snapshot)
			if ok && (merge == nil || *merge) {
				chain.merge(func(at int) bool { return chain.files[at] == file })
			}
		}
	}
	known.order = left
	known.show(vm)
}

func (l *lab) consolidate(vm *simulator.VirtualMachine) {
	known := l.chainsOf(vm.Self)
	known.mu.Lock()
	defer known.mu.Unlock()
	for _, chain := range known.disks {
		chain.merge(func(int) bool { return true })
	}
	known.show(vm)
}

// merge drops the link above each one that is wanted and that no snapshot freezes; who froze the dropped one freezes
// the one below.
func (c *links) merge(wanted func(at int) bool) {
	for at := len(c.files) - 2; at >= 0; at-- {
		if c.isFrozen(c.files[at]) || !wanted(at) {
			continue
		}
		dropped := c.files[at+1]
		c.files = append(c.files[:at+1:at+1], c.files[at+2:]...)
		for snapshot, file := range c.frozen {
			if file == dropped {
				c.frozen[snapshot] = c.files[at]
			}
		}
	}
}

func (c *links) isFrozen(file string) bool {
	for _, frozen := range c.frozen {
		if frozen == file {
			return true
		}
	}
	return false
}

// show writes the chains into the VM's and its snapshots' configurations; the simulator's lock of the VM is held.
func (c *chains) show(vm *simulator.VirtualMachine) {
	mendLayout(vm)
	needed := false
	for _, chain := range c.disks {
		for _, file := range chain.files[:len(chain.files)-1] {
			needed = needed || !chain.isFrozen(file)
		}
	}
	for _, ref := range c.order {
		snapshot, ok := simulator.Map.Get(ref).(*simulator.VirtualMachineSnapshot)
		if !ok {
			continue
		}
		simulator.Map.WithLock(snapshot, func() {
			snapshot.Config.Hardware.Device = c.devices(snapshot.Config.Hardware.Device, &ref)
		})
	}
	simulator.Map.Update(vm, []types.PropertyChange{
		{Name: "config.hardware.device", Val: c.devices(vm.Config.Hardware.Device, nil)},
		{Name: "runtime.consolidationNeeded", Val: needed},
	})
}

// devices is a configuration's devices with each disk on the file that it has now; live without a snapshot.
func (c *chains) devices(
	devices []types.BaseVirtualDevice, snapshot *types.ManagedObjectReference,
) []types.BaseVirtualDevice {
	shown := make([]types.BaseVirtualDevice, len(devices))
	for at, device := range devices {
		shown[at] = device
		disk, backing := flat(device)
		if backing == nil || !dependent(backing) || c.disks[disk.Key] == nil {
			continue
		}
		chain := c.disks[disk.Key]
		copied := *disk
		top := chain.files[len(chain.files)-1]
		if snapshot != nil {
			top = chain.frozen[*snapshot]
		}
		fresh := chain.backing(*backing, top)
		if snapshot != nil {
			fresh.ChangeId = chain.tracking.ids[*snapshot]
		}
		copied.Backing = fresh
		shown[at] = &copied
	}
	return shown
}

// backing is a file with all below it as its parents.
func (c *links) backing(like types.VirtualDiskFlatVer2BackingInfo, top string) *types.VirtualDiskFlatVer2BackingInfo {
	like.ChangeId, like.Parent, like.DeltaDiskFormat = "", nil, ""
	var below *types.VirtualDiskFlatVer2BackingInfo
	for _, file := range c.files {
		link := like
		link.FileName, link.Parent = file, below
		if below != nil {
			link.DeltaDiskFormat = c.format
		}
		below = &link
		if file == top {
			return below
		}
	}
	return below
}

// mendLayout puts the list of a VM's files right: 0.24.2 leaves the folder out whenever it
// makes the list anew.
func mendLayout(vm *simulator.VirtualMachine) {
	for at := range vm.LayoutEx.File {
		var named, vmx object.DatastorePath
		file := &vm.LayoutEx.File[at]
		if named.FromString(file.Name) && path.Dir(named.Path) == "." && vmx.FromString(vm.Config.Files.VmPathName) {
			named.Path = path.Join(path.Dir(vmx.Path), named.Path)
			file.Name = named.String()
		}
	}
}
