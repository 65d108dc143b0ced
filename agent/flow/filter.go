// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Filter says which flows somebody wants; the zero value is for all. Each field that is
// set has to match.
type Filter struct {
	// Namespace is that of the source or of the Service.
	Namespace string
	// From is the source: namespace/pod, namespace/workload, or an address.
	From string
	// To is what was called: namespace/name or namespace/name/port of a Service,
	// namespace/pod of a backend, or an address with or without a port.
	To string
	// Status are those of HTTP: codes such as 404, or classes such as 5xx.
	Status []string
	// Protocol is as in Flow.
	Protocol string
	// Origin is who saw it.
	Origin Origin
	// Failed is for those that failed.
	Failed bool
	// Slower is for those that took longer.
	Slower time.Duration
}

// Values are the filter as the query of a URL, as ParseFilter reads it.
func (f Filter) Values() url.Values {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	set("namespace", f.Namespace)
	set("from", f.From)
	set("to", f.To)
	set("status", strings.Join(f.Status, ","))
	set("protocol", f.Protocol)
	set("origin", string(f.Origin))
	if f.Failed {
		v.Set("failed", "true")
	}
	if f.Slower > 0 {
		v.Set("slower", f.Slower.String())
	}
	return v
}

// ParseFilter reads a filter; an error names the key that can't be used. Other keys are
// left alone.
func ParseFilter(v url.Values) (Filter, error) {
	f := Filter{
		Namespace: v.Get("namespace"), From: v.Get("from"), To: v.Get("to"),
		Protocol: v.Get("protocol"), Origin: Origin(v.Get("origin")),
	}
	if text := v.Get("status"); text != "" {
		f.Status = strings.Split(text, ",")
	}
	for _, s := range f.Status {
		if !validStatus(s) {
			return f, fmt.Errorf("status %q: want a code such as 404, or a class such as 5xx", s)
		}
	}
	if f.Origin != "" && f.Origin != OriginEnvoy && f.Origin != OriginKernel {
		return f, fmt.Errorf("origin %q: want %s or %s", f.Origin, OriginEnvoy, OriginKernel)
	}
	var err error
	if text := v.Get("failed"); text != "" {
		if f.Failed, err = strconv.ParseBool(text); err != nil {
			return f, fmt.Errorf("failed %q: want true or false", text)
		}
	}
	if text := v.Get("slower"); text != "" {
		if f.Slower, err = time.ParseDuration(text); err != nil {
			return f, fmt.Errorf("slower %q: want a duration such as 100ms", text)
		}
	}
	return f, nil
}

// validStatus takes 404 and 5xx.
func validStatus(s string) bool {
	if len(s) != 3 || s[0] < '1' || s[0] > '9' {
		return false
	}
	rest := strings.ToLower(s[1:])
	return rest == "xx" || strings.Trim(rest, "0123456789") == ""
}

// Matches says whether the flow is one of those wanted.
func (f Filter) Matches(flow *Flow) bool {
	switch {
	case f.Namespace != "" && f.Namespace != flow.Source.Namespace && f.Namespace != flow.Service.Namespace,
		f.From != "" && !flow.Source.is(f.From),
		f.To != "" && !flow.to(f.To),
		len(f.Status) > 0 && !slices.ContainsFunc(f.Status, func(s string) bool { return statusIs(flow.Status, s) }),
		f.Protocol != "" && !strings.EqualFold(f.Protocol, flow.Protocol),
		f.Origin != "" && f.Origin != flow.Origin,
		f.Failed && !flow.Failed(),
		time.Duration(flow.Duration) < f.Slower:
		return false
	}
	return true
}

// is says whether name is the peer's.
func (p Peer) is(name string) bool {
	if p.Pod != "" && (name == p.Namespace+"/"+p.Pod || name == p.Namespace+"/"+p.Workload) {
		return true
	}
	return addressIs(p.Address, name)
}

// to says whether name is that of what was called.
func (f *Flow) to(name string) bool {
	service := f.Service.Namespace + "/" + f.Service.Name
	return f.Service.Name != "" && (name == service || name == service+"/"+f.Service.Port) ||
		addressIs(f.Frontend, name) || f.Backend.is(name)
}

func addressIs(at netip.AddrPort, text string) bool {
	if !at.IsValid() {
		return false
	}
	return text == at.String() || text == at.Addr().String()
}

func statusIs(status int, want string) bool {
	if status == 0 {
		return false
	}
	code := strconv.Itoa(status)
	return code == want || strings.EqualFold(want, code[:1]+"xx")
}
