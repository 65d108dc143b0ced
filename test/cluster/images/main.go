// SPDX-License-Identifier: Apache-2.0

// Command images assembles the test cluster's container images from binaries
// and the machine's Debian packages, with no registry and no container engine:
// docker archives, as `ctr images import` and `docker load` read them. The same
// input gives the same bytes.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// nonroot is the user of the distroless images, and so of the stock Envoy's.
const nonroot = "65532:65532"

// paths are where the images' parts are found.
type paths struct {
	bin, nodevoy, envoy, out string
	// version is the tag of the agent's image.
	version string
	// agentLayer is where to write the files of the agent's image, as a tar,
	// and nothing else; empty to write all images.
	agentLayer string
}

func main() {
	var from paths
	flag.StringVar(&from.bin, "bin", "", "`directory` of pause, echo and coredns")
	flag.StringVar(&from.nodevoy, "nodevoy", "", "the agent's static `binary`, with nodevoy-probe and nodevoy-launch beside it")
	flag.StringVar(&from.envoy, "envoy", "", "the Envoy `binary`")
	flag.StringVar(&from.version, "version", "dev", "`tag` of the agent's image")
	flag.StringVar(&from.out, "out", "", "`directory` for the archives")
	flag.StringVar(&from.agentLayer, "agent-layer", "", "write the agent's files to this `tar`, and no archives")
	flag.Parse()
	if err := run(from); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(from paths) error {
	if from.agentLayer != "" {
		layer, err := rootfs(agentImage(from))
		if err != nil {
			return fmt.Errorf("assemble the agent's files: %w", err)
		}
		return os.WriteFile(from.agentLayer, layer, 0o644)
	}
	for _, image := range images(from) {
		size, err := write(image, from.out)
		if err != nil {
			return fmt.Errorf("assemble %s: %w", image.reference, err)
		}
		fmt.Printf("%-50s %4d MiB\n", image.reference, size>>20)
	}
	return nil
}

// images is what the cluster's nodes find in their image store. The agent's and
// Envoy's have the names of the chart's default values, which so run as they are.
func images(from paths) []image {
	return []image{
		{
			reference:  "nodevoy.test/pause:1",
			entrypoint: []string{"/pause"},
			binaries:   map[string]string{"/pause": filepath.Join(from.bin, "pause")},
		},
		{
			reference:  "nodevoy.test/echo:1",
			entrypoint: []string{"/echo"},
			user:       nonroot,
			binaries:   map[string]string{"/echo": filepath.Join(from.bin, "echo")},
		},
		{
			reference:  "nodevoy.test/coredns:1",
			entrypoint: []string{"/coredns"},
			binaries:   map[string]string{"/coredns": filepath.Join(from.bin, "coredns")},
		},
		agentImage(from),
		{
			// Stands in for the stock image under its own name.
			reference:  "docker.io/envoyproxy/envoy:distroless-v1.40.0",
			entrypoint: []string{"/usr/local/bin/envoy"},
			command:    []string{"-c", "/etc/envoy/envoy.yaml"},
			user:       nonroot,
			binaries:   map[string]string{"/usr/local/bin/envoy": from.envoy},
		},
	}
}

// agentImage is the image of the agent, in the cluster and in the Dockerfile.
func agentImage(from paths) image {
	return image{
		reference:  "ghcr.io/nodevoy/nodevoy:" + from.version,
		entrypoint: []string{"/usr/local/bin/nodevoy"},
		binaries: map[string]string{
			"/usr/local/bin/nodevoy":         from.nodevoy,
			"/usr/local/bin/nodevoy-probe":   filepath.Join(filepath.Dir(from.nodevoy), "nodevoy-probe"),
			"/usr/local/bin/nodevoy-launch":  filepath.Join(filepath.Dir(from.nodevoy), "nodevoy-launch"),
			"/usr/sbin/xtables-nft-multi":    "/usr/sbin/xtables-nft-multi",
			"/usr/sbin/xtables-legacy-multi": "/usr/sbin/xtables-legacy-multi",
			"/usr/sbin/ipset":                "/usr/sbin/ipset",
		},
		links: iptablesLinks(),
		// Matches and targets, which iptables loads by name.
		trees: []string{filepath.Join(libraryDir(), "xtables")},
	}
}

// iptablesLinks are the names by which the two iptables programs know what to
// do; the plain names mean nft, as in Debian.
func iptablesLinks() map[string]string {
	links := map[string]string{}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			links["/usr/sbin/"+family+verb] = "xtables-nft-multi"
			links["/usr/sbin/"+family+"-nft"+verb] = "xtables-nft-multi"
			links["/usr/sbin/"+family+"-legacy"+verb] = "xtables-legacy-multi"
		}
	}
	return links
}
