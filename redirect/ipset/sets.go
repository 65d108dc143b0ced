// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Errors that callers branch on.
var (
	// ErrNotFound: there is no set of that name.
	ErrNotFound = errors.New("no such set")
	// ErrExists: there is a set of that name already.
	ErrExists = errors.New("the set exists already")
	// ErrInUse: an iptables rule refers to the set.
	ErrInUse = errors.New("the set is in use")
	// ErrMismatch: the two sets can't be swapped.
	ErrMismatch = errors.New("the sets are of different types")
	// ErrNoType: the kernel lacks the type of set, in the revision asked for.
	ErrNoType = errors.New("the kernel has no such type of set")
	// ErrFull: the set has as many members as its MaxElements allows.
	ErrFull = errors.New("the set is full")
)

// batch is the number of members in one message: well below a socket's send
// buffer, and short enough that another socket's flush doesn't wait for it.
const batch = 500

// Header is a set as the kernel has it.
type Header struct {
	netfilter.SetSpec
	// Count is the number of members that have not expired; References the
	// number of rules that use the set.
	Count, References int
}

// Sets are the ipsets of the network namespace it was opened in. It is safe for
// concurrent use. Calls wait for each other, because they share a socket: open
// another Sets for calls that must not wait.
type Sets struct {
	socket *nl.SocketHandle
	// maxListing bounds what is read of a listing, in bytes.
	maxListing int
}

// Open opens a socket of its own to the kernel's ipsets.
func Open() (*Sets, error) {
	socket, err := dump.Socket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netfilter netlink socket: %w", err)
	}
	return &Sets{socket: socket, maxListing: maxListing}, nil
}

// Untrusted is the same for network namespaces in which others may make any number
// of sets and members: a listing beyond MaxUntrusted is dump.ErrTooMuch. It shares
// the socket.
func (s *Sets) Untrusted() *Sets { return &Sets{socket: s.socket, maxListing: MaxUntrusted} }

// Close closes the socket; later calls return an error.
func (s *Sets) Close() error { return s.socket.Close() }

// Protocol is the version of the kernel's ipset protocol; an error means the
// kernel has no ipset, or that the process may not use it.
func (s *Sets) Protocol() (int, error) {
	replies, err := s.execute(request(nl.IPSET_CMD_PROTOCOL, unix.NLM_F_ACK))
	if err != nil {
		return 0, err
	}
	for _, r := range replies {
		if v := r.Get(nl.IPSET_ATTR_PROTOCOL); len(v) == 1 {
			return int(v[0]), nil
		}
	}
	return 0, errors.New("the kernel named no ipset protocol")
}

// Create makes an empty set; ErrExists when there is one of that name.
func (s *Sets) Create(spec netfilter.SetSpec) error {
	req := request(nl.IPSET_CMD_CREATE, unix.NLM_F_EXCL)
	req.AddData(name(spec.Name))
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_TYPENAME, nl.ZeroTerminated(string(spec.Type))))
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_REVISION, nl.Uint8Attr(revision)))
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_FAMILY, nl.Uint8Attr(uint8(spec.Family))))
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	data.AddChild(uint32Attr(nl.IPSET_ATTR_MAXELEM, spec.MaxElements))
	if spec.Timeout > 0 {
		data.AddChild(uint32Attr(nl.IPSET_ATTR_TIMEOUT, uint32(spec.Timeout/time.Second)))
	}
	req.AddData(data)
	_, err := s.execute(req)
	return wrap("create", spec.Name, err)
}

// Destroy removes a set and its members. It is no error when there is none;
// ErrInUse when a rule refers to it.
func (s *Sets) Destroy(set string) error {
	err := s.named(nl.IPSET_CMD_DESTROY, set)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return wrap("destroy", set, err)
}

// Flush removes all members of a set, at once; ErrNotFound without the set.
func (s *Sets) Flush(set string) error {
	return wrap("flush", set, s.named(nl.IPSET_CMD_FLUSH, set))
}

func (s *Sets) named(cmd int, set string) error {
	req := request(cmd, 0)
	req.AddData(name(set))
	_, err := s.execute(req)
	return err
}

// Swap exchanges two sets, at once, also for the rules that refer to them.
// ErrMismatch when their types or families differ.
func (s *Sets) Swap(a, b string) error {
	req := request(nl.IPSET_CMD_SWAP, 0)
	req.AddData(name(a))
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_SETNAME2, nl.ZeroTerminated(b)))
	_, err := s.execute(req)
	return wrap("swap "+b+" with", a, err)
}

// Add puts members in. One that is there already stays, and its timeout begins
// anew. On an error some may have been added.
func (s *Sets) Add(set netfilter.SetSpec, members []netfilter.Member) error {
	return wrap("add to", set.Name, s.change(nl.IPSET_CMD_ADD, set, members))
}

// Delete takes members out. It is no error when one is not there. On an error
// some may have been taken out.
func (s *Sets) Delete(set netfilter.SetSpec, members []netfilter.Member) error {
	return wrap("delete from", set.Name, s.change(nl.IPSET_CMD_DEL, set, members))
}

func (s *Sets) change(cmd int, set netfilter.SetSpec, members []netfilter.Member) error {
	for chunk := range slices.Chunk(members, batch) {
		req := request(cmd, 0)
		req.AddData(name(set.Name))
		// The kernel wants a line number beside a list of members; with 0 it
		// answers a failure in the ordinary way.
		req.AddData(uint32Attr(nl.IPSET_ATTR_LINENO, 0))
		adt := nl.NewRtAttr(nl.IPSET_ATTR_ADT|int(nl.NLA_F_NESTED), nil)
		for _, m := range chunk {
			adt.AddChild(member(set.Type, m))
		}
		req.AddData(adt)
		if _, err := s.execute(req); err != nil {
			return err
		}
	}
	return nil
}

// Header is a set without its members; ErrNotFound without the set.
func (s *Sets) Header(set string) (Header, error) {
	replies, err := s.list(set, flagListHeader)
	if err != nil {
		return Header{}, wrap("list", set, err)
	}
	if len(replies) == 0 {
		// The kernel says so when there is no such set.
		return Header{}, wrap("list", set, errors.New("the kernel's answer is empty"))
	}
	return header(replies[0])
}

func header(r dump.Attributes) (Header, error) {
	data, err := r.Nest(nl.IPSET_ATTR_DATA)
	if err != nil {
		return Header{}, err
	}
	h := Header{
		SetSpec: netfilter.SetSpec{
			Name:        r.Text(nl.IPSET_ATTR_SETNAME),
			Type:        netfilter.SetType(r.Text(nl.IPSET_ATTR_TYPENAME)),
			Timeout:     time.Duration(data.Number(nl.IPSET_ATTR_TIMEOUT)) * time.Second,
			MaxElements: data.Number(nl.IPSET_ATTR_MAXELEM),
		},
		Count:      int(data.Number(nl.IPSET_ATTR_ELEMENTS)),
		References: int(data.Number(nl.IPSET_ATTR_REFERENCES)),
	}
	if v := r.Get(nl.IPSET_ATTR_FAMILY); len(v) == 1 {
		h.Family = family.Family(v[0])
	}
	return h, nil
}

// Members are the members of a set that have not expired, sorted.
func (s *Sets) Members(set string) ([]netfilter.Member, error) {
	var members []netfilter.Member
	err := s.eachMember(set, func(m netfilter.Member, _ uint32) { members = append(members, m) })
	slices.SortFunc(members, netfilter.Member.Compare)
	return members, err
}

// eachMember calls found with each member and the seconds that it stays.
func (s *Sets) eachMember(set string, found func(m netfilter.Member, seconds uint32)) error {
	replies, err := s.list(set, 0)
	if err != nil {
		return wrap("list", set, err)
	}
	for _, r := range replies {
		entries, err := r.Nest(nl.IPSET_ATTR_ADT)
		if err != nil {
			return wrap("list", set, err)
		}
		for _, e := range entries {
			attrs, err := dump.Parse(e.Value, 0)
			if err != nil {
				return wrap("list", set, err)
			}
			m, err := parseMember(attrs)
			if err != nil {
				return wrap("list", set, err)
			}
			found(m, attrs.Number(nl.IPSET_ATTR_TIMEOUT))
		}
	}
	return nil
}

func parseMember(attrs dump.Attributes) (netfilter.Member, error) {
	ip, err := attrs.Nest(nl.IPSET_ATTR_IP)
	if err != nil || len(ip) == 0 {
		return netfilter.Member{}, errors.Join(errors.New("a member without address"), err)
	}
	addr, ok := netip.AddrFromSlice(ip[0].Value)
	if !ok {
		return netfilter.Member{}, fmt.Errorf("a member's address has %d bytes", len(ip[0].Value))
	}
	var port uint16
	if p := attrs.Get(nl.IPSET_ATTR_PORT); len(p) == 2 {
		port = binary.BigEndian.Uint16(p)
	}
	return netip.AddrPortFrom(addr, port), nil
}

// Names are the names of all sets, whoever made them, sorted.
func (s *Sets) Names() ([]string, error) {
	replies, err := s.list("", flagListNames)
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	var names []string
	for _, r := range replies {
		names = append(names, r.Text(nl.IPSET_ATTR_SETNAME))
	}
	slices.Sort(names)
	return names, nil
}

// list lists one set, or all for want of a name.
func (s *Sets) list(set string, flags uint32) ([]dump.Attributes, error) {
	req := request(nl.IPSET_CMD_LIST, 0)
	if set != "" {
		req.AddData(name(set))
	}
	if flags != 0 {
		req.AddData(uint32Attr(nl.IPSET_ATTR_FLAGS, flags))
	}
	return s.execute(req)
}

// wrap says what was done to which set; nil stays nil.
func wrap(verb, set string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s set %s: %w", verb, set, err)
}
