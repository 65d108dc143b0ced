// SPDX-License-Identifier: Apache-2.0

package model

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The parts of names that Kubernetes generates. A random suffix and a hash of a pod
// template have no vowels, so that they spell no words, and so they are hardly ever
// what a user wrote. The hash is a number of 32 bits whose decimal digits are mapped
// to ten of these letters.
const (
	randomLetters, randomLength = "bcdfghjklmnpqrstvwxz2456789", 5
	hashLetters                 = "456789bcdf"
	hashShortest, hashLongest   = 6, 10
	digits                      = "0123456789"
	// scheduleLength is how many digits the minutes since 1970 have, in the name of a
	// CronJob's Job.
	scheduleLength = 8
	// longestGenerated is the length of a generated name whose base was cut to make room
	// for the random suffix, with the dash before it.
	longestGenerated = 63
)

// WorkloadOf derives the name of what runs a pod from the pod's name, which is all that
// is known of pods on other nodes: that of its Deployment, DaemonSet, StatefulSet, Job
// or CronJob. It is a guess, which a pod of a user's own making can mislead: web-0 is
// taken for one of a StatefulSet named web.
func WorkloadOf(pod string) string {
	base, random := withoutRandom(pod)
	if !random {
		if name, ordinal, cut := cutLast(pod); cut && consistsOf(ordinal, digits) {
			return name
		}
		return pod
	}
	return withoutTemplate(base)
}

// workload is the name of what runs a pod of this node: as its owner says, so that it
// is what WorkloadOf has for the same pod on another node.
func workload(pod *corev1.Pod) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	switch {
	case owner == nil:
		return WorkloadOf(pod.Name)
	case owner.Kind == "Node":
		// The kubelet makes it from a file.
		return strings.TrimSuffix(pod.Name, "-"+owner.Name)
	case owner.Kind == "ReplicaSet" || owner.Kind == "Job":
		return withoutTemplate(owner.Name)
	default:
		return owner.Name
	}
}

// withoutRandom cuts the random suffix that Kubernetes gives pods off a name; false if
// it has none.
func withoutRandom(pod string) (string, bool) {
	at := len(pod) - randomLength
	if at < 1 || !consistsOf(pod[at:], randomLetters) {
		return pod, false
	}
	base, dash := strings.CutSuffix(pod[:at], "-")
	return base, base != "" && (dash || len(pod) == longestGenerated)
}

// withoutTemplate cuts what tells the ReplicaSets of a Deployment or the Jobs of a
// CronJob from each other off the name of one.
func withoutTemplate(name string) string {
	base, last, cut := cutLast(name)
	hash := len(last) >= hashShortest && len(last) <= hashLongest && consistsOf(last, hashLetters)
	schedule := len(last) == scheduleLength && consistsOf(last, digits)
	if cut && (hash || schedule) {
		return base
	}
	return name
}

// cutLast cuts a name at its last dash; false if nothing is left on one side.
func cutLast(name string) (before, after string, cut bool) {
	at := strings.LastIndexByte(name, '-')
	if at < 1 || at == len(name)-1 {
		return name, "", false
	}
	return name[:at], name[at+1:], true
}

// consistsOf says whether all of the text is of these letters.
func consistsOf(text, letters string) bool { return strings.Trim(text, letters) == "" }
