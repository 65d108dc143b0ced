// SPDX-License-Identifier: Apache-2.0

package view

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nodevoy/nodevoy/agent/flow"
)

// Config is what the agent was told, and what is in force: /v1/config.
type Config struct {
	Version string `json:"version"`
	Node    string `json:"node"`
	// Flags are all of the agent's, sorted by name.
	Flags []Flag `json:"flags"`
	// Mode, Mechanism and Backend are what auto came to; see their flags.
	Mode      string `json:"mode"`
	Mechanism string `json:"mechanism,omitempty"`
	Backend   string `json:"backend"`
	// Listeners are where Envoy listens: each address with the port of each class.
	Listeners []Listener `json:"listeners"`
	// Limits are those of the summary.
	Limits []Limit `json:"limits"`
}

// Flag is a setting of the agent.
type Flag struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Given says whether it was on the command line; else the value is the default.
	Given bool `json:"given,omitempty"`
}

// Listener is where Envoy listens for connections of one class.
type Listener struct {
	Class   string `json:"class"`
	Address string `json:"address"`
}

// Flows are the last flows, oldest first: /v1/flows.
type Flows struct {
	Items []flow.Flow `json:"items"`
	flow.Counts
}

// Lost is in the stream of flows: how many a follower has not got, since the stream
// began.
type Lost struct {
	Lost uint64 `json:"lost"`
}

// LogLevel is what the agent and Envoy log: /v1/log-level.
type LogLevel struct {
	Agent string `json:"agent"`
	// Envoy is "mixed" if its loggers have different levels, and empty if Envoy does not
	// answer; EnvoyError is why.
	Envoy      string `json:"envoy"`
	EnvoyError string `json:"envoyError,omitempty"`
	// Until is when both fall back to what they were told at their start; left out if they
	// are at that.
	Until *time.Time `json:"until,omitempty"`
}

// SetLogLevel asks for other levels; an empty one stays as it is.
type SetLogLevel struct {
	Agent string `json:"agent,omitempty"`
	Envoy string `json:"envoy,omitempty"`
	// For is for how long.
	For Duration `json:"for"`
}

// Duration is one that JSON has as text, such as 10m.
type Duration time.Duration

// MarshalJSON writes the text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads it.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("a duration such as \"10m\" is wanted: %w", err)
	}
	parsed, err := time.ParseDuration(s)
	*d = Duration(parsed)
	return err
}

// Error is the body of every answer that is not a success.
type Error struct {
	Error string `json:"error"`
}
