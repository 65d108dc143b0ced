// SPDX-License-Identifier: Apache-2.0

package flow

import "encoding/json"

// Flag is one of Envoy's response flags, by its short name.
type Flag string

// meaning is a flag in words, and whether it stands for a failure.
type meaning struct {
	flag    Flag
	failure bool
	words   string
}

// meanings are the flags of Envoy 1.40 (source/common/stream_info/utility.h), in the words
// of a user of Services.
func meanings() [29]meaning {
	return [...]meaning{
		{"UH", true, "no backend is healthy"},
		{"UF", true, "the connection to the backend failed"},
		{"UO", true, "a limit of connections or requests to the Service was reached"},
		{"NR", true, "Envoy has no route for the request"},
		{"URX", true, "the last permitted attempt failed, too"},
		{"NC", true, "Envoy has no configuration of the Service"},
		{"DT", true, "the longest time allowed was reached"},
		{"UT", true, "the backend did not answer in time"},
		{"LR", true, "Envoy reset the request"},
		{"UR", true, "the backend reset the request"},
		{"UC", true, "the backend closed the connection"},
		{"UPE", true, "the backend's answer is not valid HTTP"},
		{"DPE", true, "what the client sent is not valid HTTP"},
		{"IH", true, "a header of the request is invalid"},
		{"RL", true, "a limit of requests in a second was reached"},
		{"RLSE", true, "the rate limit service failed"},
		{"UAEX", true, "the authorization service denied the request"},
		{"OM", true, "Envoy has too little memory or too many connections"},
		{"DF", true, "a name was not resolved"},
		{"DO", true, "Envoy dropped the request to protect the Service"},
		{"NFCF", true, "a filter's configuration is missing"},
		{"UMSDR", true, "the longest time of a stream was reached"},
		{"SI", true, "nothing was sent or received for too long"},
		{"LH", true, "the backend failed its health check"},
		{"DC", false, "the client closed the connection first"},
		{"DR", false, "the client reset the request"},
		{"DI", false, "a delay was injected"},
		{"FI", false, "a fault was injected"},
		{"RFCF", false, "answered from a cache"},
	}
}

// meaning is the zero value for a flag that is not known.
func (f Flag) meaning() meaning {
	for _, m := range meanings() {
		if m.flag == f {
			return m
		}
	}
	return meaning{}
}

// Failures are all flags that stand for a failure.
func Failures() []Flag {
	var out []Flag
	for _, m := range meanings() {
		if m.failure {
			out = append(out, m.flag)
		}
	}
	return out
}

// Words say what the flag means; empty for an unknown one.
func (f Flag) Words() string { return f.meaning().words }

// Failure says whether the flag stands for a failure, rather than for what a client did.
func (f Flag) Failure() bool { return f.meaning().failure }

// flagJSON is a Flag in JSON: its short name and its meaning.
type flagJSON struct {
	Flag  string `json:"flag"`
	Words string `json:"words,omitempty"`
}

// MarshalJSON writes the flag and its meaning.
func (f Flag) MarshalJSON() ([]byte, error) {
	return json.Marshal(flagJSON{string(f), f.Words()})
}

// UnmarshalJSON reads back what MarshalJSON wrote.
func (f *Flag) UnmarshalJSON(text []byte) error {
	var in flagJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*f = Flag(in.Flag)
	return nil
}
