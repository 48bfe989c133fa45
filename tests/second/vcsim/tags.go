package main

import (
	"context"
	"net/url"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
)

// tag gives the virtual machines their tags, by the one way there is: /rest of the running server.
func (l *lab) tag(w *world) error {
	ctx := context.Background()
	client, err := l.loggedIn(ctx)
	if err != nil {
		return err
	}
	service := rest.NewClient(client)
	if err := service.Login(ctx, l.url.User); err != nil {
		return err
	}
	manager := tags.NewManager(service)
	finder := find.NewFinder(client, false)
	categories, known := map[string]string{}, map[string]string{}
	for _, m := range w.VMs {
		for _, text := range m.Tags {
			names := strings.SplitN(text, "/", 2)
			if categories[names[0]] == "" {
				made, err := manager.CreateCategory(ctx, &tags.Category{Name: names[0], Cardinality: "MULTIPLE"})
				if err != nil {
					return err
				}
				categories[names[0]] = made
			}
			if known[text] == "" {
				made, err := manager.CreateTag(ctx, &tags.Tag{Name: names[1], CategoryID: categories[names[0]]})
				if err != nil {
					return err
				}
				known[text] = made
			}
			vm, err := finder.VirtualMachine(ctx, "/"+datacenterName+"/vm/"+m.Folder+"/"+m.Name)
			if err != nil {
				return err
			}
			if err := manager.AttachTag(ctx, known[text], vm.Reference()); err != nil {
				return err
			}
		}
	}
	return service.Logout(ctx)
}

// loggedIn is a client of the simulator itself, past our gate and its counters.
func (l *lab) loggedIn(ctx context.Context) (*vim25.Client, error) {
	behind := &url.URL{Scheme: l.url.Scheme, User: l.url.User, Host: l.url.Host, Path: l.url.Path + "/vimService"}
	client, err := vim25.NewClient(ctx, soap.NewClient(behind, true))
	if err != nil {
		return nil, err
	}
	return client, session.NewManager(client).Login(ctx, l.url.User)
}
