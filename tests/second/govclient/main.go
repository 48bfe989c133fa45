// A client that is not pyVmomi: govmomi's, asking a manager everything that a backup asks, and a little more.
//
// Our client and our lab's vCenter read and write XML with the same library, which forgives its own mistakes. This one
// was written by others, types every value strictly and sends its requests in chunks. It prints what it was told as
// JSON, one key a question; a test holds that against what the manager knows of itself.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
)

const timeout = 60 * time.Second

// survey is a client, logged in, and what it found out.
type survey struct {
	ctx    context.Context
	client *vim25.Client
	login  *session.Manager
	finder *find.Finder
	told   map[string]interface{}
	bodies map[string]int // how many requests came with a length, and how many in chunks
}

func main() {
	address := flag.String("url", "", "https://user:password@host:port/sdk")
	authority := flag.String("ca", "", "PEM `file` of the CA")
	vm := flag.String("vm", "vm1", "`name` of the virtual machine to work with")
	withTags := flag.Bool("tags", false, "ask /rest for tags as well")
	flag.Parse()
	log.SetFlags(0)

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	where, err := url.Parse(*address)
	must(err)
	s := &survey{ctx: ctx, told: map[string]interface{}{}, bodies: map[string]int{}}
	s.connect(where, *authority)
	s.about()
	s.inventory()
	s.searches(*vm)
	s.types(*vm)
	s.paging()
	s.machine(*vm)
	s.tracking(*vm)
	s.power(*vm)
	s.faults(*vm)
	if *withTags {
		s.tags(where.User)
	}
	s.goodbye(where)
	s.told["bodies"] = s.bodies
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	must(out.Encode(s.told))
}

// connect logs in over a verified connection; a wrong password comes first.
func (s *survey) connect(where *url.URL, authority string) {
	transport := soap.NewClient(where, false)
	must(transport.SetRootCAs(authority))
	must((&vim25.Client{Client: transport}).UseServiceVersion()) // each release speaks its own, and those before it
	client, err := vim25.NewClient(s.ctx, transport)
	must(err)
	inner := client.Client.Client.Transport
	client.Client.Client.Transport = counting{inner, s.bodies}
	manager := session.NewManager(client)
	s.told["wrong password"] = faultOf(manager.Login(s.ctx, url.UserPassword(where.User.Username(), "wrong")))
	must(manager.Login(s.ctx, where.User))
	s.client, s.login = client, manager
	s.told["speaks"] = transport.Version
	s.finder = find.NewFinder(client, false)
	center, err := s.finder.DefaultDatacenter(s.ctx)
	must(err)
	s.finder.SetDatacenter(center)
}

// counting sends every other request in chunks, as this library's clients do where a body's length is not known.
type counting struct {
	inner  http.RoundTripper
	bodies map[string]int
}

const chunk = 100

type small struct{ io.ReadCloser }

func (b small) Read(into []byte) (int, error) {
	if len(into) > chunk {
		into = into[:chunk]
	}
	return b.ReadCloser.Read(into)
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	how := "whole"
	if r.Body != nil && c.bodies["whole"] > c.bodies["chunked"] {
		how = "chunked"
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = small{r.Body}, -1
	}
	c.bodies[how]++
	return c.inner.RoundTrip(r)
}

func must(err error) {
	if err != nil {
		log.Panicf("%T: %v", err, err)
	}
}
