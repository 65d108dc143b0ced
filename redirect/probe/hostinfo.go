// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/ebpf"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// HostInfo is what the probe asks of the node besides its Kernel.
type HostInfo interface {
	// NFTables names the nf_tables tables of a family.
	NFTables(f family.Family) ([]string, error)
	// Sysctl reads a value, such as "net/ipv4/ip_forward"; empty when the
	// kernel has none of that name.
	Sysctl(name string) (string, error)
	// ProxyMode is what kube-proxy says of itself; empty when it says nothing.
	ProxyMode(ctx context.Context) string
	// PodPrograms are the eBPF programs on pods' interfaces, as of ebpf.OnPods.
	PodPrograms() ([]ebpf.Program, error)
	// ConnectPrograms are those that act on connect, as of ebpf.OnConnect.
	ConnectPrograms() ([]ebpf.Program, error)
	// Namespaces says where pods' network namespaces can be found, as
	// netns.Config.Preflight does.
	Namespaces() (netns.Preflight, error)
	// Scratch calls fn with the kernel of a network namespace that is made for it
	// and ends with the call. fn's error is returned; any other is about the
	// namespace, and wraps netns.ErrNotPermitted if that is the reason.
	Scratch(fn func(apply.Kernel) error) error
}

type nodeInfo struct {
	namespaces netns.Config
}

// proxyModeURL is where kube-proxy answers, unless it was told otherwise.
const (
	proxyModeURL     = "http://127.0.0.1:10249/proxyMode"
	proxyModeTimeout = time.Second
)

func (nodeInfo) NFTables(f family.Family) ([]string, error) { return iptables.NFTables(f) }

func (nodeInfo) Sysctl(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

func (nodeInfo) PodPrograms() ([]ebpf.Program, error) { return ebpf.OnPods() }

func (nodeInfo) ConnectPrograms() ([]ebpf.Program, error) { return ebpf.OnConnect() }

func (n nodeInfo) Namespaces() (netns.Preflight, error) { return n.namespaces.Preflight() }

func (nodeInfo) Scratch(fn func(apply.Kernel) error) error {
	return netns.Scratch(func() error {
		k, err := apply.OpenKernel()
		if err != nil {
			return err
		}
		return errors.Join(fn(k), k.Close())
	})
}

func (nodeInfo) ProxyMode(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, proxyModeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, proxyModeURL, http.NoBody)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return strings.TrimSpace(string(b))
}
