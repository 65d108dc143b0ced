// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"slices"

	"github.com/nodevoy/nodevoy/test/lab"
)

// program is a server and what its clients do.
type program struct {
	name string
	// start is a shell command that becomes the server. DIR is a directory of its own,
	// TESTDATA that of its files here.
	start string
	// listen is the port that it listens on.
	listen int32
	// ports are its Services.
	ports []port
	calls []call
}

// port is a Service of one port.
type port struct {
	name   string
	number int32
	// app is the appProtocol, and target a port other than the program's.
	app    string
	target int32
}

// call is a client. Its first success says that the server is ready.
type call struct {
	// run is a shell command. HOST and PORT are the Service's, or the pod's; DIR and
	// TESTDATA are as for the server; nginx, for example, is the IP of that server's pod.
	run string
	// want is in what it prints where all is well.
	want string
	// untimed calls take as long as they take.
	untimed bool
	// head is set where what it prints begins with the heads of responses.
	head bool
	// fails is set where it doesn't exit with success, with nodevoy or without.
	fails bool
	// unlike is why the call may end otherwise, where Envoy parses HTTP if nothing else is
	// said, and later why it may take longer there.
	unlike, later string
	// only are the numbers of the Services that it is for, if not all.
	only []int32
}

func (c call) isFor(p port) bool { return c.only == nil || slices.Contains(c.only, p.number) }

// mayDiffer says whether the call may end otherwise at a port of this class.
func (c call) mayDiffer(class string, mode lab.Mode) bool {
	switch c.unlike {
	case "":
		return false
	case detectLoss:
		return class == "detect"
	case nodeAddress:
		return mode == lab.Host
	}
	return class != "tcp"
}

// all are the programs, of all kinds.
func all() []program {
	return slices.Concat(webServers(), dataServers(), otherServers(), proxies())
}
