// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// LogFormat is the format of a line of text of the access log: text with commands of
// Envoy, %COMMAND(ARGUMENT):LENGTH%, and with %NODEVOY(COLUMN)%. It holds only commands
// that are known here: Envoy would refuse its listeners for another.
type LogFormat string

// ownCommand stands for a column of the access log.
const ownCommand = "NODEVOY"

// MarshalText writes the format as flags do.
func (f LogFormat) MarshalText() ([]byte, error) { return []byte(f), nil }

// UnmarshalText reads a format; an empty one is for the columns.
func (f *LogFormat) UnmarshalText(text []byte) error {
	read := LogFormat(text)
	if err := read.validate(); err != nil {
		return err
	}
	*f = read
	return nil
}

// logCommand is a command of Envoy that a format may have.
type logCommand struct {
	// argument matches what may be between the parentheses; nil if there are none.
	argument *regexp.Regexp
	// bare is set if it needs no argument, and cut if a length may follow.
	bare, cut bool
}

// logCommands are the commands by name.
func logCommands() map[string]logCommand {
	commands := map[string]logCommand{
		"START_TIME":      {argument: regexp.MustCompile(`^[A-Za-z0-9%.:/_ +-]+$`), bare: true},
		"GRPC_STATUS":     {argument: regexp.MustCompile(`^(CAMEL_STRING|SNAKE_STRING|NUMBER)$`), bare: true},
		"COMMON_DURATION": {argument: regexp.MustCompile(`^` + timePoint + `:` + timePoint + `:(ms|us|ns)$`)},
		ownCommand:        {argument: regexp.MustCompile(`^[a-z_]+$`)},
	}
	for _, name := range []string{"REQ", "RESP", "TRAILER"} {
		commands[name] = logCommand{argument: regexp.MustCompile(`^:?[A-Za-z0-9-]+(\?:?[A-Za-z0-9-]+)?$`), cut: true}
	}
	for _, name := range []string{
		"BYTES_RECEIVED", "BYTES_SENT", "CONNECTION_ID", "CONNECTION_TERMINATION_DETAILS",
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
		"DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT",
		"DURATION", "HOSTNAME", "PROTOCOL", "REQUEST_DURATION", "REQUEST_TX_DURATION",
		"RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_DURATION", "RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG", "RESPONSE_TX_DURATION",
		"ROUNDTRIP_DURATION", "SPAN_ID", "STREAM_ID", "TRACE_ID",
		"UPSTREAM_CLUSTER", "UPSTREAM_CONNECTION_ID", "UPSTREAM_HOST", "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_REMOTE_ADDRESS",
		"UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_TRANSPORT_FAILURE_REASON",
	} {
		commands[name] = logCommand{bare: true}
	}
	return commands
}

// timePoint matches the points in time of COMMON_DURATION.
const timePoint = `(DS_RX_BEG|DS_RX_END|US_CX_BEG|US_CX_END|US_TX_BEG|US_TX_END|US_RX_BEG|US_RX_END|DS_TX_BEG|DS_TX_END)`

// logCommandText finds a command, or what is none, from its first percent sign on.
func logCommandText() *regexp.Regexp {
	return regexp.MustCompile(`^%([A-Z][A-Z0-9_]*)(\([^()]*\))?(:[0-9]{1,4})?%`)
}

// validate says what is wrong with a format.
func (f LogFormat) validate() error {
	if strings.ContainsAny(string(f), "\x00\r\n") || strings.ToValidUTF8(string(f), "") != string(f) {
		return fmt.Errorf("%q is no format of a line: want one line of UTF-8", string(f))
	}
	commands := logCommands()
	return f.each(func(string) {}, func(name, argument, length string) error {
		c, known := commands[name]
		switch {
		case !known:
			return fmt.Errorf("unknown command %q", name)
		case argument == "" && !c.bare:
			return fmt.Errorf("%s needs an argument", name)
		case argument != "" && (c.argument == nil || !c.argument.MatchString(argument[1:len(argument)-1])):
			return fmt.Errorf("%s: %s is no argument of it", name, argument)
		case length != "" && !c.cut:
			return fmt.Errorf("%s: can't be cut to a length", name)
		case name == ownCommand && !slices.ContainsFunc(columns(Config{}, ListenerSpec{}, true), func(c column) bool { return "("+c.name+")" == argument }):
			return fmt.Errorf("%s: %s is no column of the access log", name, argument)
		}
		return nil
	})
}

// each calls a function for each piece of text of a format, and one for each command.
func (f LogFormat) each(text func(string), command func(name, argument, length string) error) error {
	find := logCommandText()
	for rest := string(f); rest != ""; {
		at := strings.IndexByte(rest, '%')
		if at != 0 {
			if at < 0 {
				at = len(rest)
			}
			text(rest[:at])
			rest = rest[at:]
			continue
		}
		if strings.HasPrefix(rest, "%%") {
			text("%%")
			rest = rest[2:]
			continue
		}
		m := find.FindStringSubmatch(rest)
		if m == nil {
			return fmt.Errorf("no command begins at %q: want %%COMMAND%%, or %%%% for a percent sign", rest)
		}
		if err := command(m[1], m[2], m[3]); err != nil {
			return err
		}
		rest = rest[len(m[0]):]
	}
	return nil
}

// line is the format of a line, as Envoy takes it, with these columns.
func (f LogFormat) line(columns []column) string {
	var out strings.Builder
	err := f.each(func(text string) { out.WriteString(text) }, func(name, argument, length string) error {
		if name != ownCommand {
			out.WriteString("%" + name + argument + length + "%")
			return nil
		}
		for _, c := range columns {
			if "("+c.name+")" == argument {
				out.WriteString(c.text())
			}
		}
		return nil
	})
	if err != nil {
		return "" // Config.Validate has refused it.
	}
	return out.String() + "\n"
}

// LogExamples has each command that a format may have, sorted, with an argument where
// there may be one.
func LogExamples() []string {
	arguments := map[string]string{
		"START_TIME": "(%Y-%m-%dT%H:%M:%S.%3fZ)", "GRPC_STATUS": "(NUMBER)", "COMMON_DURATION": "(DS_RX_BEG:US_RX_END:us)",
		ownCommand: "(backend_node)", "REQ": "(:PATH?X-A):9", "RESP": "(CONTENT-TYPE)", "TRAILER": "(GRPC-STATUS)",
	}
	var out []string
	for _, name := range sortedKeys(logCommands()) {
		out = append(out, "%"+name+arguments[name]+"%")
	}
	return out
}
