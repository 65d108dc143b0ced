// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Undeclared is what becomes of Service ports whose protocol nothing declares.
type Undeclared string

const (
	// UndeclaredLikely detects the protocol where HTTP is likely; else it takes the
	// port for plain TCP.
	UndeclaredLikely Undeclared = "likely"
	// UndeclaredDetect detects the protocol of all.
	UndeclaredDetect Undeclared = "detect"
	// UndeclaredTCP takes all for plain TCP.
	UndeclaredTCP Undeclared = "tcp"
)

// String is the setting as it is written.
func (u Undeclared) String() string { return string(u) }

// MarshalText writes the setting as flags do.
func (u Undeclared) MarshalText() ([]byte, error) { return []byte(u), nil }

// UnmarshalText reads one of the three.
func (u *Undeclared) UnmarshalText(text []byte) error {
	switch v := Undeclared(text); v {
	case UndeclaredLikely, UndeclaredDetect, UndeclaredTCP:
		*u = v
		return nil
	}
	return fmt.Errorf("%q is no setting for undeclared ports: want %s, %s or %s", text, UndeclaredLikely, UndeclaredDetect, UndeclaredTCP)
}

// likelyPorts are numbers of ports, of a Service or a container, at which HTTP in clear
// text is likely: what IANA assigns to HTTP (80, 591, 8008, 8080), what web frameworks
// listen on by default, and the ports of well-known servers of HTTP alone.
func likelyPorts() []uint16 {
	return []uint16{
		80, 81, 591, 3000, 3100, 4318, 5000, 5601, 8000, 8001, 8008, 8080, 8081, 8082, 8083, 8084, 8085, 8086, 8087, 8088, 8089,
		8090, 8181, 8200, 8428, 8500, 8888, 8983, 9090, 9091, 9100, 9200, 9411, 15672, 16686,
	}
}

// encryptedPorts are numbers at which TLS is likely, whatever the name says.
func encryptedPorts() []uint16 { return []uint16{443, 6443, 8443, 9443, 10250} }

// likelyWords are words in the name of a port at which HTTP in clear text is likely.
func likelyWords() []string {
	return []string{
		"http", "http1", "http2", "h2c", "web", "webui", "www", "ui", "gui", "console", "dashboard", "portal", "frontend", "rest", "api", "graphql",
		"metrics", "prometheus", "prom", "exporter", "monitoring", "grafana", "kibana", "health", "healthz", "healthcheck", "actuator",
	}
}

// encryptedWords are words in the name of a port at which TLS is likely.
func encryptedWords() []string { return []string{"https", "tls", "ssl", "wss", "mtls", "secure"} }

// undeclaredClass is the class of a port whose protocol nothing declares, and why.
func undeclaredClass(u Undeclared, port *corev1.ServicePort) (Class, string) {
	switch u {
	case UndeclaredTCP:
		return ClassTCP, "no declared protocol"
	case UndeclaredDetect:
		return ClassDetect, "no declared protocol"
	}
	target := port.TargetPort.IntValue()
	for _, number := range []int{int(port.Port), target} {
		if slices.Contains(encryptedPorts(), uint16(number)) {
			return ClassTCP, "no declared protocol, TLS likely: port " + strconv.Itoa(number)
		}
	}
	names := []struct{ what, name string }{{"name", port.Name}, {"targetPort", port.TargetPort.StrVal}}
	for _, n := range names {
		if hasWord(n.name, encryptedWords()) {
			return ClassTCP, "no declared protocol, TLS likely: " + n.what + " " + n.name
		}
	}
	for _, n := range names {
		if hasWord(n.name, likelyWords()) {
			return ClassDetect, "no declared protocol, HTTP likely: " + n.what + " " + n.name
		}
	}
	switch {
	case slices.Contains(likelyPorts(), uint16(port.Port)):
		return ClassDetect, "no declared protocol, HTTP likely: port " + strconv.Itoa(int(port.Port))
	case slices.Contains(likelyPorts(), uint16(target)):
		return ClassDetect, "no declared protocol, HTTP likely: targetPort " + strconv.Itoa(target)
	}
	return ClassTCP, "no declared protocol; appProtocol declares it"
}

// hasWord says whether one of the words is between the hyphens of a name.
func hasWord(name string, words []string) bool {
	for word := range strings.SplitSeq(name, "-") {
		if slices.Contains(words, word) {
			return true
		}
	}
	return false
}
