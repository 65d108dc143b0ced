// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ClassAnnotation is on a Service that says itself what the class of its ports is: one
// class for all, or, with commas between, PORT=CLASS, where PORT is the name or the
// number of a port. It comes before all else, what the port declares included.
const ClassAnnotation = "nodevoy.io/class"

// ownClasses are what a Service's ClassAnnotation says.
type ownClasses struct {
	// rest, if set, is of the ports that are not named.
	rest *Class
	// named are by name or number.
	named map[string]Class
}

// parseOwnClasses reads the annotation's text.
func parseOwnClasses(text string) (ownClasses, error) {
	own := ownClasses{named: map[string]Class{}}
	for part := range strings.SplitSeq(text, ",") {
		port, name, named := strings.Cut(strings.TrimSpace(part), "=")
		if !named {
			port, name = "", port
		}
		class, err := parseClass(name)
		_, twice := own.named[port]
		switch {
		case err != nil:
			return ownClasses{}, err
		case twice || !named && own.rest != nil:
			return ownClasses{}, fmt.Errorf("%q names a port twice", text)
		case named:
			own.named[port] = class
		default:
			own.rest = &class
		}
	}
	return own, nil
}

// parseClass is the inverse of a class's String.
func parseClass(text string) (Class, error) {
	for _, c := range Classes() {
		if text == c.String() {
			return c, nil
		}
	}
	return ClassDetect, fmt.Errorf("%q is no class: want http, tcp or detect", text)
}

// of is the class of a port; false if the annotation leaves it open.
func (o ownClasses) of(port *corev1.ServicePort) (Class, bool) {
	for _, key := range []string{port.Name, strconv.Itoa(int(port.Port))} {
		if class, is := o.named[key]; is && key != "" {
			return class, true
		}
	}
	if o.rest != nil {
		return *o.rest, true
	}
	return ClassDetect, false
}

// unknown are the names of ports that the Service doesn't have.
func (o ownClasses) unknown(ports []corev1.ServicePort) []string {
	var out []string
	for name := range o.named {
		known := false
		for i := range ports {
			known = known || name != "" && (name == ports[i].Name || name == strconv.Itoa(int(ports[i].Port)))
		}
		if !known {
			out = append(out, name)
		}
	}
	return out
}

// ownClasses reads the Service's annotation. One that can't be read counts for nothing.
func (v *serviceView) ownClasses() ownClasses {
	text, set := v.Annotations[ClassAnnotation]
	if !set {
		return ownClasses{}
	}
	problem := func(detail string) {
		v.problems.add(kindService, &v.ObjectMeta, "metadata.annotations["+ClassAnnotation+"]", detail)
	}
	own, err := parseOwnClasses(text)
	if err != nil {
		problem(err.Error() + "; treated as not set")
		return ownClasses{}
	}
	for _, name := range own.unknown(v.Spec.Ports) {
		problem(fmt.Sprintf("%q is no port of the Service", name))
	}
	return own
}
