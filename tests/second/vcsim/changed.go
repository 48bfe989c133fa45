package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	grain     = 64 << 10 // what a tracker remembers is no finer
	areasMax  = 2000     // as hosts answer
	sinceEver = "*"      // all that is allocated; here: all that was ever written
)

// tracking is one disk's change tracker: which of its blocks were written in which epoch; a snapshot ends an epoch.
type tracking struct {
	id     string
	epoch  int
	blocks map[int64]int // block number → the epoch of its last write
	ids    map[types.ManagedObjectReference]string
	epochs map[types.ManagedObjectReference]int
	past   []map[int64]int // the blocks as each epoch left them
}

func newTracking() *tracking {
	return &tracking{
		id:     uuid.New().String(),
		blocks: map[int64]int{},
		ids:    map[types.ManagedObjectReference]string{},
		epochs: map[types.ManagedObjectReference]int{},
	}
}

func (t *tracking) freeze(snapshot types.ManagedObjectReference) {
	left := make(map[int64]int, len(t.blocks))
	for block, epoch := range t.blocks {
		left[block] = epoch
	}
	t.past = append(t.past, left)
	t.epochs[snapshot] = t.epoch
	t.ids[snapshot] = fmt.Sprintf("%s/%d", t.id, t.epoch)
	t.epoch++
}

func (t *tracking) write(start, length int64) {
	for block := start / grain; block*grain < start+length; block++ {
		t.blocks[block] = t.epoch
	}
}

// since is the blocks that were written after a change id was given, up to a snapshot.
func (t *tracking) since(id string, snapshot *types.ManagedObjectReference) ([]int64, types.BaseMethodFault) {
	after, blocks := -1, t.blocks
	if snapshot != nil {
		blocks = t.past[t.epochs[*snapshot]]
	}
	if id != sinceEver {
		slash := strings.LastIndexByte(id, '/')
		number, err := strconv.Atoi(id[slash+1:])
		if slash < 0 || err != nil || id[:slash] != t.id || number >= t.epoch {
			return nil, &types.InvalidArgument{InvalidProperty: "changeId"}
		}
		after = number
	}
	var found []int64
	for block, epoch := range blocks {
		if epoch > after {
			found = append(found, block)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i] < found[j] })
	return found, nil
}

// changedAreas answers QueryChangedDiskAreas, which the simulator does not know.
func (l *lab) changedAreas(
	vm *simulator.VirtualMachine, asked *types.QueryChangedDiskAreas,
) (*types.DiskChangeInfo, types.BaseMethodFault) {
	known := l.chainsOf(vm.Self)
	if known == nil || known.disks[asked.DeviceKey] == nil {
		return nil, &types.NotFound{}
	}
	known.mu.Lock()
	defer known.mu.Unlock()
	tracker := known.disks[asked.DeviceKey].tracking
	frozen := asked.Snapshot == nil
	if !frozen {
		_, frozen = tracker.ids[*asked.Snapshot]
	}
	if !frozen || vm.Config.ChangeTrackingEnabled == nil || !*vm.Config.ChangeTrackingEnabled {
		return nil, &types.FileFault{File: vm.Config.Files.VmPathName}
	}
	size := capacity(vm, asked.DeviceKey)
	if asked.StartOffset < 0 || asked.StartOffset > size {
		return nil, &types.InvalidArgument{InvalidProperty: "startOffset"}
	}
	blocks, fault := tracker.since(asked.ChangeId, asked.Snapshot)
	if fault != nil {
		return nil, fault
	}
	return page(blocks, asked.StartOffset, size), nil
}

func capacity(vm *simulator.VirtualMachine, key int32) int64 {
	for _, device := range vm.Config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok && disk.Key == key {
			return disk.CapacityInBytes
		}
	}
	return 0
}

// page is the areas from an offset on, merged where they touch, as many as fit an answer.
func page(blocks []int64, start, size int64) *types.DiskChangeInfo {
	answer := &types.DiskChangeInfo{StartOffset: start, Length: size - start}
	for _, block := range blocks {
		from, to := block*grain, (block+1)*grain
		if to > size {
			to = size
		}
		if from < start {
			from = start
		}
		if from >= to {
			continue
		}
		if last := len(answer.ChangedArea) - 1; last >= 0 {
			area := &answer.ChangedArea[last]
			if area.Start+area.Length == from {
				area.Length = to - area.Start
				continue
			}
			if last+1 == areasMax {
				answer.Length = area.Start + area.Length - start
				break
			}
		}
		answer.ChangedArea = append(answer.ChangedArea, types.DiskChangeExtent{Start: from, Length: to - from})
	}
	return answer
}
