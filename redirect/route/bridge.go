// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/family"
)

// Bridged names a veth that is a port of a bridge whose frames iptables sees
// (br_netfilter); empty when there is none.
func (n *Network) Bridged(f family.Family) (string, error) {
	sysctl := "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if f == family.V6 {
		sysctl = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
	}
	value, err := os.ReadFile(sysctl)
	if errors.Is(err, os.ErrNotExist) || (err == nil && strings.TrimSpace(string(value)) == "0") {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	links, err := n.handle.LinkList()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	bridges := map[int]bool{}
	for _, l := range links {
		bridges[l.Attrs().Index] = l.Type() == "bridge"
	}
	for _, l := range links {
		if l.Type() == "veth" && bridges[l.Attrs().MasterIndex] {
			return l.Attrs().Name, nil
		}
	}
	return "", nil
}
