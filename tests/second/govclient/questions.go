package main

import (
	"fmt"
	"net/url"
	"sort"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type row = map[string]interface{}

func (s *survey) about() {
	about := s.client.ServiceContent.About
	now, err := methods.GetCurrentTime(s.ctx, s.client)
	must(err)
	active, err := s.login.SessionIsActive(s.ctx)
	must(err)
	mine, err := session.NewManager(s.client).UserSession(s.ctx) // asks, where the one that logged in remembers
	must(err)
	s.told["about"] = row{
		"is vCenter": s.client.IsVC(), "api": about.ApiVersion, "full name": about.FullName,
		"instance uuid": about.InstanceUuid, "time": now, "session active": active, "user": mine.UserName,
	}
}

// inventory lists what there is, by a view with whole objects and by the paths a person writes.
func (s *survey) inventory() {
	views := view.NewManager(s.client)
	all, err := views.CreateContainerView(s.ctx, s.client.ServiceContent.RootFolder, nil, true)
	must(err)
	defer func() { must(all.Destroy(s.ctx)) }()

	var vms []mo.VirtualMachine
	must(all.Retrieve(s.ctx, []string{"VirtualMachine"}, nil, &vms)) // every property there is
	listed := []row{}
	for _, vm := range vms {
		listed = append(listed, describe(vm))
	}
	sort.Slice(listed, func(i, j int) bool { return listed[i]["name"].(string) < listed[j]["name"].(string) })
	s.told["vms"] = listed

	var stores []mo.Datastore
	must(all.Retrieve(s.ctx, []string{"Datastore"}, nil, &stores))
	found := []row{}
	for _, store := range stores {
		one := row{
			"name": store.Name, "moref": store.Self.Value, "type": store.Summary.Type, "url": store.Summary.Url,
			"accessible": store.Summary.Accessible, "capacity": store.Summary.Capacity,
			"free": store.Summary.FreeSpace, "hosts": len(store.Host), "vms": len(store.Vm),
		}
		switch info := store.Info.(type) {
		case *types.VmfsDatastoreInfo:
			one["uuid"], one["version"] = info.Vmfs.Uuid, info.Vmfs.Version
			extents := []string{}
			for _, extent := range info.Vmfs.Extent {
				extents = append(extents, extent.DiskName)
			}
			one["extents"] = extents
		case *types.NasDatastoreInfo:
			one["remote host"], one["remote path"] = info.Nas.RemoteHost, info.Nas.RemotePath
		}
		found = append(found, one)
	}
	sort.Slice(found, func(i, j int) bool { return found[i]["name"].(string) < found[j]["name"].(string) })
	s.told["datastores"] = found

	paths := []string{}
	everything, err := s.finder.ManagedObjectListChildren(s.ctx, "/...")
	must(err)
	for _, element := range everything {
		paths = append(paths, element.Object.Reference().Type+" "+element.Path)
	}
	sort.Strings(paths)
	s.told["paths"] = paths
}

func describe(vm mo.VirtualMachine) row {
	one := row{
		"name": vm.Name, "moref": vm.Self.Value, "uuid": vm.Config.Uuid, "instance uuid": vm.Config.InstanceUuid,
		"power": vm.Runtime.PowerState, "connected": vm.Runtime.ConnectionState, "vmx": vm.Config.Files.VmPathName,
		"template": vm.Config.Template, "tools": vm.Guest.ToolsRunningStatus, "ip": vm.Guest.IpAddress,
		"host name": vm.Guest.HostName, "guest": vm.Config.GuestFullName, "memory": vm.Config.Hardware.MemoryMB,
		"summary name": vm.Summary.Config.Name, "summary power": vm.Summary.Runtime.PowerState,
		"tracking": vm.Config.ChangeTrackingEnabled, "consolidation": vm.Runtime.ConsolidationNeeded,
		"datastores": len(vm.Datastore), "version": vm.Config.Version,
	}
	disks := []row{}
	devices := object.VirtualDeviceList(vm.Config.Hardware.Device)
	for _, device := range devices.SelectByType((*types.VirtualDisk)(nil)) {
		disks = append(disks, disk(devices, device.(*types.VirtualDisk)))
	}
	one["disks"], one["snapshots"] = disks, snapshots(vm.Snapshot)
	return one
}

func disk(devices object.VirtualDeviceList, d *types.VirtualDisk) row {
	one := row{
		"key": d.Key, "label": d.DeviceInfo.GetDescription().Label, "bytes": d.CapacityInBytes, "kb": d.CapacityInKB,
		"unit": d.UnitNumber, "controller": "",
	}
	if controller := devices.FindByKey(d.ControllerKey); controller != nil {
		one["controller"] = devices.Type(controller)
	}
	if backing, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		files := []string{}
		for at := backing; at != nil; at = at.Parent {
			files = append(files, at.FileName)
		}
		one["files"], one["mode"], one["uuid"], one["change id"] = files, backing.DiskMode, backing.Uuid, backing.ChangeId
		one["thin"], one["format"] = backing.ThinProvisioned, backing.DeltaDiskFormat
	}
	return one
}

func snapshots(info *types.VirtualMachineSnapshotInfo) []row {
	found := []row{}
	if info == nil {
		return found
	}
	waiting := info.RootSnapshotList
	for len(waiting) > 0 {
		tree := waiting[0]
		waiting = append(waiting[1:len(waiting):len(waiting)], tree.ChildSnapshotList...)
		found = append(found, row{
			"name": tree.Name, "description": tree.Description, "quiesced": tree.Quiesced, "state": tree.State,
			"moref": tree.Snapshot.Value, "vm": tree.Vm.Value, "current": tree.Snapshot == *info.CurrentSnapshot,
			"created": tree.CreateTime.UTC(),
		})
	}
	return found
}

// searches asks the search index in each way.
func (s *survey) searches(name string) {
	vm := s.vm(name)
	index := object.NewSearchIndex(s.client)
	instance := true
	ask := func(found object.Reference, err error) string {
		must(err)
		if found == nil {
			return ""
		}
		return found.Reference().Value
	}
	answers := row{
		"path":          ask(index.FindByInventoryPath(s.ctx, s.object(name).InventoryPath)),
		"uuid":          ask(index.FindByUuid(s.ctx, nil, vm.Config.Uuid, true, nil)),
		"instance uuid": ask(index.FindByUuid(s.ctx, nil, vm.Config.InstanceUuid, true, &instance)),
		"ip":            ask(index.FindByIp(s.ctx, nil, vm.Guest.IpAddress, true)),
		"dns name":      ask(index.FindByDnsName(s.ctx, nil, vm.Guest.HostName, true)),
		"nowhere":       ask(index.FindByInventoryPath(s.ctx, "/no/such/place")),
	}
	s.told["searches"] = answers
}

// types asks for single properties: each goes out alone, under the name of its own type.
func (s *survey) types(name string) {
	asked := map[string][]string{
		"VirtualMachine": {
			"name", "config.template", "config.hardware.memoryMB", "config.modified", "config.hardware.device",
			"config.extraConfig", "config.files", "runtime.powerState", "runtime.host", "guest.toolsRunningStatus",
			"summary.config", "snapshot", "snapshot.rootSnapshotList", "datastore", "recentTask", "parent",
		},
		"Datastore": {"summary.capacity", "summary.freeSpace", "summary.accessible", "summary", "info", "host", "vm"},
	}
	refs := map[string]types.ManagedObjectReference{"VirtualMachine": s.object(name).Reference()}
	store, err := s.finder.DatastoreList(s.ctx, "*")
	must(err)
	refs["Datastore"] = store[0].Reference()
	told := row{}
	for kind, paths := range asked {
		answer, err := methods.RetrieveProperties(s.ctx, s.client, &types.RetrieveProperties{
			This: s.client.ServiceContent.PropertyCollector,
			SpecSet: []types.PropertyFilterSpec{{
				ObjectSet: []types.ObjectSpec{{Obj: refs[kind]}},
				PropSet:   []types.PropertySpec{{Type: kind, PathSet: paths}},
			}},
		})
		must(err)
		for _, property := range answer.Returnval[0].PropSet {
			told[kind+"."+property.Name] = fmt.Sprintf("%T", property.Val)
		}
	}
	s.told["types"] = told
}

// paging reads names in pages of two.
func (s *survey) paging() {
	views := view.NewManager(s.client)
	all, err := views.CreateContainerView(s.ctx, s.client.ServiceContent.RootFolder, []string{"ManagedEntity"}, true)
	must(err)
	defer func() { must(all.Destroy(s.ctx)) }()
	skip := true
	request := types.RetrievePropertiesEx{
		This: s.client.ServiceContent.PropertyCollector,
		SpecSet: []types.PropertyFilterSpec{{
			ObjectSet: []types.ObjectSpec{{Obj: all.Reference(), Skip: &skip, SelectSet: []types.BaseSelectionSpec{
				&types.TraversalSpec{Type: "ContainerView", Path: "view"},
			}}},
			PropSet: []types.PropertySpec{{Type: "ManagedEntity", PathSet: []string{"name"}}},
		}},
		Options: types.RetrieveOptions{MaxObjects: 2},
	}
	answer, err := methods.RetrievePropertiesEx(s.ctx, s.client, &request)
	must(err)
	page, sizes, names := answer.Returnval, []int{}, map[string]bool{}
	for page != nil {
		sizes = append(sizes, len(page.Objects))
		for _, content := range page.Objects {
			names[content.Obj.String()] = true
		}
		if page.Token == "" {
			break
		}
		next, err := methods.ContinueRetrievePropertiesEx(s.ctx, s.client, &types.ContinueRetrievePropertiesEx{
			This: request.This, Token: page.Token,
		})
		must(err)
		page = &next.Returnval
	}
	s.told["pages"] = row{"sizes": sizes, "objects": len(names)}
}

// goodbye logs out, and sees that it is out.
func (s *survey) goodbye(where *url.URL) {
	must(s.login.Logout(s.ctx))
	_, err := s.finder.VirtualMachineList(s.ctx, "*")
	s.told["after logout"] = faultOf(err)
	must(s.login.Login(s.ctx, where.User))
	must(s.login.Logout(s.ctx))
}

func (s *survey) object(name string) *object.VirtualMachine {
	vm, err := s.finder.VirtualMachine(s.ctx, name)
	must(err)
	return vm
}

func (s *survey) vm(name string) mo.VirtualMachine {
	var vm mo.VirtualMachine
	reader := property.DefaultCollector(s.client)
	must(reader.RetrieveOne(s.ctx, s.object(name).Reference(), []string{"config", "guest", "snapshot", "runtime"}, &vm))
	return vm
}

// tags asks /rest which tags there are, and on what.
func (s *survey) tags(user *url.Userinfo) {
	client := rest.NewClient(s.client)
	must(client.Login(s.ctx, user))
	manager := tags.NewManager(client)
	ids, err := manager.ListTags(s.ctx)
	must(err)
	attached, err := manager.ListAttachedObjectsOnTags(s.ctx, ids)
	must(err)
	found := row{}
	for _, one := range attached {
		tag, err := manager.GetTag(s.ctx, one.TagID)
		must(err)
		category, err := manager.GetCategory(s.ctx, tag.CategoryID)
		must(err)
		refs := []string{}
		for _, on := range one.ObjectIDs {
			refs = append(refs, on.Reference().Type+" "+on.Reference().Value)
		}
		found[category.Name+"/"+tag.Name] = refs
	}
	must(client.Logout(s.ctx))
	s.told["tags"] = found
}
