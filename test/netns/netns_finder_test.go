// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/netns"
)

func TestFinderFindsPodsByTheirAddresses(t *testing.T) {
	d := newRuntimeDir(t)
	a := d.add("a", "10.1.0.2", "fd01::2")
	b := d.add("b", "net1=192.168.7.3", "10.1.0.3")
	six := d.add("six", "fd01::4")
	d.add("other", "10.1.0.9")
	// Of the runtime, but no network namespaces: yet, any more, or at all.
	other := filepath.Join(d.path, "ipc")
	err := errors.Join(
		os.WriteFile(filepath.Join(d.path, "empty"), nil, 0o600), os.Mkdir(filepath.Join(d.path, "dir"), 0o700),
		os.WriteFile(other, nil, 0o600), unix.Mount("/proc/self/ns/ipc", other, "", unix.MS_BIND, ""))
	if err != nil {
		t.Fatal(err)
	}
	// A second name of one namespace is no second namespace.
	if err := os.Symlink(b, filepath.Join(d.path, "z")); err != nil {
		t.Fatal(err)
	}
	f := d.finder("")
	want := []netns.Wanted{pod("a", "10.1.0.2", "fd01::2"), pod("b", "10.1.0.3"), pod("six", "fd01::4"), pod("none", "10.1.0.77"), pod("a", "10.1.0.2")}
	found, missing := f.expect(map[string]string{"a": a, "b": b, "six": six}, want[:4]...)
	says(t, missing["none"], netns.ErrNotFound, "10.1.0.77", "default/none", "the node's 4")
	again, _ := f.later(want...)
	for uid, s := range found {
		if again[uid] != s {
			t.Errorf("%s has another Namespace the second time", uid)
		}
	}
	f.Release("a")
	if err := found["a"].Do(func() error { return nil }); !errors.Is(err, netns.ErrGone) {
		t.Errorf("a released Namespace isn't closed: %v", err)
	}
	if again, _ = f.expect(map[string]string{"a": a}, want[0]); again["a"] == found["a"] {
		t.Error("a Namespace was given out that was released")
	}
}

func TestFinderAll(t *testing.T) {
	d := newRuntimeDir(t)
	a, b := d.add("a", "10.1.0.2"), d.add("b")
	if err := os.Symlink("/proc/thread-self/ns/net", filepath.Join(d.path, "host")); err != nil {
		t.Fatal(err)
	}
	f := d.finder("")
	f.expect(map[string]string{"a": a}, pod("a", "10.1.0.2"))
	namespaces, err := f.All()
	var got []string
	for _, s := range namespaces {
		got = append(got, s.Path())
		_ = s.Close()
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint([]string{a, b}) {
		t.Errorf("All() = %v, %v, want %s and %s", got, err, a, b)
	}
	// What was found is still held.
	f.expect(map[string]string{"a": a}, pod("a", "10.1.0.2"))
}

// An agent that starts again finds what is there at its first look; a pod that
// comes is found at most a second later, as long as the runtime's mount is there.
func TestFinderFindsNewPodsSoon(t *testing.T) {
	d := newRuntimeDir(t)
	d.add("a", "10.1.0.2")
	late := d.add("late")
	f := d.finder("")
	want := []netns.Wanted{pod("a", "10.1.0.2"), pod("late", "10.1.0.3"), pod("new", "10.1.0.4")}
	if found, _ := f.Find(want); found["a"] == nil {
		t.Fatal("the first look doesn't find what is there")
	}
	d.address(late, "10.1.0.3")
	d.add("new", "10.1.0.4")
	f.now = f.now.Add(500 * time.Millisecond)
	if found, missing := f.Find(want); len(found) != 3 {
		t.Errorf("half a second later there are missing: %v", missing)
	}
}

// A namespace that has some address already may be given the pod's later.
func TestFinderReadsNamespacesAnew(t *testing.T) {
	d := newRuntimeDir(t)
	a := d.add("a", "net1=192.168.7.2")
	f := d.finder("")
	f.expect(nil, pod("a", "10.1.0.2"))
	d.address(a, "10.1.0.2")
	f.now = f.now.Add(time.Second)
	if found, missing := f.Find([]netns.Wanted{pod("a", "10.1.0.2")}); found["a"] == nil {
		t.Errorf("a second later it is missing: %v", missing["a"])
	}
}

func TestFinderTellsDeletedPods(t *testing.T) {
	d := newRuntimeDir(t)
	a := d.add("a", "10.1.0.2")
	f := d.finder("")
	want := pod("a", "10.1.0.2")
	found, _ := f.expect(map[string]string{"a": a}, want)
	d.remove(a)
	_, missing := f.expect(nil, want)
	says(t, missing["a"], netns.ErrNotFound, "default/a")
	if err := found["a"].Check(nil); !errors.Is(err, netns.ErrGone) {
		t.Errorf("Check of a deleted pod's Namespace says %v", err)
	}
	// Another pod's that has come at once, or a sandbox that was made again for the
	// same pod: only time tells.
	again := d.add("a2", "10.1.0.2")
	f.now = f.now.Add(time.Second)
	_, missing = f.Find([]netns.Wanted{want})
	says(t, missing["a"], netns.ErrAmbiguous, "default/a", again, "may be a new pod's")
	f.expect(map[string]string{"a": again}, want)
}

// The address is a new pod's before anybody says that the old pod is gone.
func TestFinderGivesReusedAddressToTheNewPod(t *testing.T) {
	for name, deleted := range map[string]bool{"namespace deleted": true, "address taken away": false} {
		t.Run(name, func(t *testing.T) {
			d := newRuntimeDir(t)
			a := d.add("a", "10.1.0.2")
			f := d.finder("")
			old, young := pod("old", "10.1.0.2"), pod("young", "10.1.0.2")
			f.expect(map[string]string{"old": a}, old)
			if deleted {
				d.remove(a)
			} else {
				d.flush(a, "10.1.0.2")
			}
			b := d.add("b", "10.1.0.2")
			_, missing := f.expect(map[string]string{"young": b}, old, young)
			says(t, missing["old"], netns.ErrAmbiguous, b, "default/old", "default/young")
			// And as long as both are wanted.
			_, missing = f.expect(map[string]string{"young": b}, young, old)
			says(t, missing["old"], netns.ErrAmbiguous, b, "held for default/young")
			f.Release("old")
			f.expect(map[string]string{"young": b}, young)
		})
	}
}

// Without having seen who was first, nobody can tell.
func TestFinderRefusesTwoPodsWithOneAddress(t *testing.T) {
	d := newRuntimeDir(t)
	a := d.add("a", "10.1.0.2")
	f := d.finder("")
	_, missing := f.expect(nil, pod("one", "10.1.0.2"), pod("two", "10.1.0.2"))
	for _, uid := range []string{"one", "two"} {
		says(t, missing[uid], netns.ErrAmbiguous, a, "default/one", "default/two")
	}
	f.expect(map[string]string{"two": a}, pod("two", "10.1.0.2"))
}

func TestFinderRefusesTwoNamespacesWithOneAddress(t *testing.T) {
	d := newRuntimeDir(t)
	a, b, c := d.add("a", "10.1.0.2"), d.add("b", "net1=10.1.0.2"), d.add("c", "10.1.0.3")
	f := d.finder("")
	want, other := pod("a", "10.1.0.2"), pod("c", "10.1.0.3")
	_, missing := f.expect(map[string]string{"c": c}, want, other)
	says(t, missing["a"], netns.ErrAmbiguous, "10.1.0.2 of default/a", a, b)
	d.remove(b)
	f.expect(map[string]string{"a": a, "c": c}, want, other)
}

// Whoever may administer a pod's network can put any address there.
func TestFinderIsNotMisledByAddressesInOtherPods(t *testing.T) {
	d := newRuntimeDir(t)
	a, b := d.add("a", "10.1.0.2"), d.add("b", "10.1.0.3")
	f := d.finder("")
	first, second, third := pod("a", "10.1.0.2"), pod("b", "10.1.0.3"), pod("c", "10.1.0.4")
	held, _ := f.expect(map[string]string{"a": a}, first)
	// For a pod that is held already.
	d.address(b, "eth1=10.1.0.2")
	found, _ := f.expect(map[string]string{"a": a, "b": b}, first, second)
	if found["a"] != held["a"] {
		t.Error("a has another Namespace")
	}
	// For one whose own namespace isn't there yet, and then is.
	d.address(b, "eth1=10.1.0.4")
	_, missing := f.expect(map[string]string{"a": a, "b": b}, first, second, third)
	says(t, missing["c"], netns.ErrAmbiguous, "10.1.0.4 of default/c", b, "held for default/b")
	c := d.add("c", "10.1.0.4")
	f.expect(map[string]string{"a": a, "b": b, "c": c}, first, second, third)
}

// A family that comes late, goes or is disabled leaves the other alone.
func TestFinderTakesEitherFamily(t *testing.T) {
	d := newRuntimeDir(t)
	a := d.add("a", "10.1.0.2")
	f := d.finder("")
	want := pod("a", "10.1.0.2", "fd01::2")
	before, _ := f.expect(map[string]string{"a": a}, want)
	says(t, before["a"].Check(want.IPs), netns.ErrGone, "fd01::2")
	d.address(a, "fd01::2")
	after, _ := f.expect(map[string]string{"a": a}, want)
	if err := after["a"].Check(want.IPs); err != nil || after["a"] != before["a"] {
		t.Errorf("with both addresses: Check says %v", err)
	}
	d.flush(a, "10.1.0.2")
	if after, _ = f.expect(map[string]string{"a": a}, want); after["a"] != before["a"] {
		t.Error("another Namespace is given when one family is gone")
	}
	d.flush(a, "fd01::2")
	f.expect(nil, want)
	d.address(a, "10.1.0.2")
	f.expect(map[string]string{"a": a}, want)
}

// Pods are deleted and made while they are looked for; in the end the process has
// as many files as at the beginning.
func TestFinderWhileNamespacesComeAndGo(t *testing.T) {
	d := newRuntimeDir(t)
	f := d.finder("")
	var want []netns.Wanted
	for i := range 6 {
		d.add(fmt.Sprintf("pod%d", i), fmt.Sprintf("10.1.0.%d", i+2))
		want = append(want, pod(fmt.Sprintf("pod%d", i), fmt.Sprintf("10.1.0.%d", i+2)))
	}
	f.later(want...)
	f.Release("pod0")
	before := openFiles(t)
	done := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		defer close(done)
		for round := range 30 {
			name := fmt.Sprintf("pod%d", round%6)
			d.remove(filepath.Join(d.path, name))
			d.add(name, fmt.Sprintf("10.1.0.%d", round%6+2))
		}
	})
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		found, missing := f.later(want...)
		for uid, s := range found {
			if err := s.Do(func() error { return nil }); err != nil {
				t.Errorf("%s: %v", uid, err)
			}
		}
		for uid, err := range missing {
			// Each of them comes back in another namespace, with its old address.
			if !errors.Is(err, netns.ErrNotFound) && !errors.Is(err, netns.ErrGone) && !errors.Is(err, netns.ErrAmbiguous) {
				t.Errorf("%s: %v", uid, err)
			}
		}
		namespaces, err := f.All()
		for _, s := range namespaces {
			_ = s.Close()
		}
		if err != nil {
			t.Errorf("All: %v", err)
		}
	}
	churn.Wait()
	f.now = f.now.Add(10 * time.Second)
	if found, missing := f.later(want...); len(found) != len(want) {
		t.Errorf("missing in the end: %v", missing)
	}
	f.Release("pod0")
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, were %d", after, before)
	}
	f.Close()
	if after := openFiles(t); after != before-2*(len(want)-1) {
		t.Errorf("%d files are open after Close, want %d", after, before-2*(len(want)-1))
	}
}
