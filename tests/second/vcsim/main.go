// A vCenter that is not ours: Debian's govmomi simulator, with what a backup needs of a vCenter and that one lacks.
//
// Inventory, property collector, sessions, tasks' property updates, views, searches and /rest are the simulator's own
// code, by other people than ours. Added in front of it, through its public parts only and without changing a line of
// it (version 0.24.2):
//
//	world.go    an inventory as a JSON file tells it; VMFS datastores with their LUNs' names
//	gate.go     what comes in: counted, refused without a session, delayed, failed or dropped as ordered
//	tasks.go    snapshots as tasks that take their time, one at a time on each VM
//	chain.go    delta disks: what a snapshot froze, what the VM writes on, consolidation
//	changed.go  changed block tracking
//	tags.go     tags, by /rest
//	control.go  /_lab: trouble on demand, for tests
//
// It prints one line of JSON, {"port": N}, once it listens, and ends with its standard input.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // /rest: sessions, tags
)

func main() {
	worldFile := flag.String("world", "", "JSON `file` that describes the inventory")
	state := flag.String("state", "", "empty `directory` for the simulator's own files")
	certificate := flag.String("cert", "", "certificate of the server, PEM")
	key := flag.String("key", "", "its key, PEM")
	flag.Parse()
	log.SetFlags(0)

	world, err := readWorld(*worldFile)
	fatal(err)
	model := simulator.VPX()
	model.Machine, model.Datastore, model.Host, model.Portgroup, model.ClusterHost = 0, 0, 0, 0, 2
	fatal(model.Create())
	lab := newLab(model.Service)
	fatal(lab.build(world, *state))

	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	fatal(err)
	service, mux := model.Service, http.NewServeMux()
	service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(world.Username, world.Password)}
	service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	service.ServeMux = mux
	service.RegisterEndpoints = true
	mux.HandleFunc("127.0.0.1/sdk", lab.serve) // a pattern with a host goes before the simulator's own
	mux.HandleFunc("/_lab/", lab.control)
	server := service.NewServer()
	_, port, err := net.SplitHostPort(server.URL.Host)
	fatal(err)
	lab.url = server.URL
	fatal(lab.tag(world))
	fmt.Printf("{\"port\": %s}\n", port)

	_, _ = io.Copy(io.Discard, os.Stdin) // whoever started us is gone, or wants an end
}

func readWorld(path string) (*world, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	found := new(world)
	return found, json.Unmarshal(data, found)
}

func fatal(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
