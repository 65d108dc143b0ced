// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"math/rand/v2"
	"strings"
	"time"
)

// Generate makes the case of a seed.
func Generate(seed uint64) Case {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0))}
	c := Case{Seed: seed, Class: pick(g, HTTP, HTTP, HTTP, HTTP, HTTP, TCP, TCP, Detect, Detect)}
	if c.Class == HTTP || c.Class == Detect && g.chance(60) {
		g.http(&c)
	} else {
		g.raw(&c)
	}
	return c
}

// generator makes choices.
type generator struct{ *rand.Rand }

// chance is true in so many of 100 cases.
func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// size is mostly small.
func (g *generator) size() int {
	switch n := g.IntN(100); {
	case n < 60:
		return g.IntN(40)
	case n < 90:
		return g.IntN(3000)
	case n < 97:
		return g.IntN(100_000)
	}
	return g.IntN(600_000)
}

// text is n bytes that differ from place to place, so that a loss shows.
func (g *generator) text(n int) string {
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(pick(g, "alpha ", "beta\r\n", "gamma\n\n", "0123456789", "\x00\xff\x80", "HTTP/1.1 ", "0\r\n\r\n"))
		b.WriteByte(byte(g.IntN(256)))
	}
	return b.String()[:n]
}

// send is a message in as many writes as chance wants.
func (g *generator) send(pieces ...string) []Step {
	var out []Step
	split := g.chance(40)
	for _, p := range pieces {
		for split && len(p) > 1 && g.chance(15) {
			at := 1 + g.IntN(len(p)-1)
			out = append(out, Step{Op: Send, Data: p[:at]}, g.flush())
			p = p[at:]
		}
		if p != "" {
			out = append(out, Step{Op: Send, Data: p})
		}
		if split && g.chance(10) {
			out = append(out, g.flush())
		}
	}
	return out
}

func (g *generator) flush() Step {
	return Step{Op: Flush, Pause: time.Duration(pick(g, 0, 0, 1, 3)) * time.Millisecond}
}

// raw makes a dialogue of bytes, in which either side may begin.
func (g *generator) raw(c *Case) {
	var client, server []Step
	var toClient, toServer int
	inTurn, clientSends := g.chance(70), g.chance(75)
	for turn := range g.IntN(5) {
		data := g.opening()
		if turn > 0 {
			data = g.text(g.size())
		}
		if clientSends {
			if inTurn && toClient > 0 {
				client = append(client, Step{Op: AwaitBytes, N: toClient})
			}
			client = append(client, g.send(data)...)
			toServer += len(data)
		} else {
			if inTurn && toServer > 0 {
				server = append(server, Step{Op: AwaitBytes, N: toServer})
			}
			server = append(server, g.send(data)...)
			toClient += len(data)
		}
		clientSends = !clientSends
	}
	client, server = append(client, Step{Op: AwaitBytes, N: toClient}), append(server, Step{Op: AwaitBytes, N: toServer})
	first, second := &client, &server
	switch {
	case toClient == 0 && g.chance(30): // The client sends and closes, and nobody waits.
		client, server = append(client, Step{Op: Close}), append(server, Step{Op: AwaitEnd})
	case g.chance(40):
		g.rawEnd(second, first)
	default:
		g.rawEnd(first, second)
	}
	c.Client, c.Replies = client, []Reply{{When: AtOnce, Steps: server}}
}

// opening is how connections of many protocols begin.
func (g *generator) opening() string {
	return pick(g, "", "get /users/1\r\n", "PING\r\n", "EHLO client.example\r\n", "220 ready\r\n", "SSH-2.0-x\r\n", "app.hits 1 1700000000\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "*1\r\n$4\r\nPING\r\n", "0\x0c\x02\x01\x01", "GET", "G",
		"GETS key\r\n", "PUT 1 2 3 4\r\n", "POST\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HELLO /x\r\n") + g.text(g.size())
}

// rawEnd makes one side end the connection before the other, or nobody.
func (g *generator) rawEnd(first, second *[]Step) {
	*first, *second = append(*first, Step{Op: Meet}), append(*second, Step{Op: Meet})
	switch g.IntN(7) {
	case 0:
	case 1:
		*first = append(*first, Step{Op: Reset})
		*second = append(*second, Step{Op: AwaitEnd})
	case 2:
		*first = append(*first, Step{Op: Close})
		*second = append(*second, Step{Op: AwaitEnd}, Step{Op: Close})
	default:
		*first = append(*first, Step{Op: CloseWrite}, Step{Op: AwaitEnd})
		*second = append(*second, Step{Op: AwaitEnd})
		if g.chance(50) {
			*second = append(*second, g.send(g.text(g.size()))...)
		}
		*second = append(*second, Step{Op: pick(g, Close, CloseWrite)})
	}
}
