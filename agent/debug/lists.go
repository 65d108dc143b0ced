// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// defaultLimit and maxLimit are how many items a part of a list has.
const defaultLimit, maxLimit = 500, 1000

func (f *front) pods(r *http.Request) (any, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	return encoded(f.source.Pods(q)), nil
}

func (f *front) services(r *http.Request) (any, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	return encoded(f.source.Services(q)), nil
}

func (f *front) frontends(r *http.Request) (any, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	list, err := f.source.Frontends(q)
	return encoded(list), err
}

func (f *front) xds(r *http.Request) (any, error) {
	q, err := query(r)
	if err != nil {
		return nil, err
	}
	x := f.source.XDS(q)
	x.List = encoded(x.List)
	return x, nil
}

func (f *front) service(r *http.Request) (any, error) {
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	service, ok := f.source.Service(namespace, name)
	if !ok {
		return nil, fmt.Errorf("service %s/%s has no frontend, or does not exist: %w", namespace, name, ErrNotFound)
	}
	service.Continue = encode(service.Continue)
	return service, nil
}

// query reads what part of a list is asked for.
func query(r *http.Request) (view.Query, error) {
	v := r.URL.Query()
	q := view.Query{
		Limit:     defaultLimit,
		Namespace: v.Get("namespace"), Service: v.Get("service"), Class: v.Get("class"), Kind: v.Get("kind"),
	}
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return q, fmt.Errorf("limit %q is not a number from 1 to %d: %w", text, maxLimit, ErrInvalid)
		}
		q.Limit = n
	}
	after, err := base64.RawURLEncoding.DecodeString(v.Get("continue"))
	if err != nil {
		return q, fmt.Errorf("continue %q is not from an answer: %w", v.Get("continue"), ErrInvalid)
	}
	q.After = string(after)
	if q.InUse, err = boolean(v, "inUse"); err != nil {
		return q, err
	}
	q.Refused, err = boolean(v, "refused")
	return q, err
}

// boolean is a key's value; a key without one is true.
func boolean(v url.Values, key string) (bool, error) {
	text := v.Get(key)
	if text == "" {
		return v.Has(key), nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s %q is neither true nor false: %w", key, text, ErrInvalid)
	}
	return b, nil
}

// encoded makes of the key of the last item what a URL can have.
func encoded[T any](l view.List[T]) view.List[T] {
	l.Continue = encode(l.Continue)
	return l
}

func encode(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }
