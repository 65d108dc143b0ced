// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// classify decides a frontend's capture class and says why: what the Service's
// annotation says, then what the port declares, then how it is named, then what its
// number means by convention, and where that leaves it open, what opts.Undeclared says.
// A name is no promise: ports of TLS are often named http, so that what comes first decides.
func (f *Frontend) classify(port *corev1.ServicePort, own ownClasses, opts *Options) {
	if class, ok := own.of(port); ok {
		f.Class, f.ClassReason = class, "annotation "+ClassAnnotation
		return
	}
	if port.AppProtocol != nil && *port.AppProtocol != "" {
		f.Class, f.ClassReason = declaredClass(*port.AppProtocol), "appProtocol "+*port.AppProtocol
		return
	}
	switch class, ok := namedClass(port.Name); {
	case ok && class == ClassHTTP:
		f.Class, f.NamedHTTP, f.ClassReason = ClassDetect, true, "port name "+port.Name+", HTTP not seen yet"
	case ok:
		f.Class, f.ClassReason = class, "port name "+port.Name
	case slices.Contains(opts.OpaquePorts, uint16(port.Port)):
		f.Class, f.ClassReason = ClassTCP, "opaque port "+strconv.Itoa(int(port.Port))
	default:
		f.Class, f.ClassReason = undeclaredClass(opts.Undeclared, port)
	}
}

// declaredClass takes the Service at its word: a protocol that is declared
// and not known to be clear-text HTTP is bytes. Kubernetes' own names for
// protocols mean what the plain ones do, which users write more often.
func declaredClass(appProtocol string) Class {
	switch strings.TrimPrefix(strings.ToLower(appProtocol), "kubernetes.io/") {
	case "http", "http2", "h2c", "grpc", "grpc-web", "ws":
		return ClassHTTP
	default:
		return ClassTCP
	}
}

// namedClass reads the convention name[-suffix]; false for other names, since
// a name is not a declaration.
func namedClass(name string) (Class, bool) {
	prefix, _, _ := strings.Cut(name, "-")
	switch prefix {
	case "http", "http2", "h2c", "grpc", "ws":
		return ClassHTTP, true
	case "https", "tls", "wss", "tcp", "amqp", "amqps", "cassandra", "imap", "imaps", "kafka", "ldap", "ldaps",
		"memcached", "mongo", "mongodb", "mqtt", "mqtts", "mssql", "mysql", "nats", "postgres",
		"postgresql", "redis", "rediss", "smtp", "smtps", "ssh":
		return ClassTCP, true
	default:
		return ClassDetect, false
	}
}
