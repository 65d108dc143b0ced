// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"errors"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"

	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Has says whether a member is in a set, however large that is; ErrNotFound without
// the set.
func (s *Sets) Has(set netfilter.SetSpec, m netfilter.Member) (bool, error) {
	req := request(nl.IPSET_CMD_TEST, 0)
	req.AddData(name(set.Name))
	req.AddData(member(set.Type, m))
	_, err := s.execute(req)
	// The kernel's answer to "is it there?" is an error if it is not.
	if errors.Is(err, nl.IPSetError(nl.IPSET_ERR_EXIST)) || errors.Is(err, syscall.Errno(nl.IPSET_ERR_EXIST)) {
		return false, nil
	}
	return err == nil, wrap("look into", set.Name, err)
}

// Expiries are the members of a set that have not expired, and how long each stays; 0
// for one that does for ever.
func (s *Sets) Expiries(set string) (map[netfilter.Member]time.Duration, error) {
	left := map[netfilter.Member]time.Duration{}
	err := s.eachMember(set, func(m netfilter.Member, seconds uint32) { left[m] = time.Duration(seconds) * time.Second })
	return left, err
}
