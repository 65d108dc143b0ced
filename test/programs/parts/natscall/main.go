// SPDX-License-Identifier: Apache-2.0

// Command natscall is a client of NATS: `natscall ADDRESS` answers a request of its own.
package main

import (
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(address string) error {
	c, err := nats.Connect("nats://" + address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Subscribe("subject", func(m *nats.Msg) { _ = m.Respond(append([]byte("answer to "), m.Data...)) }); err != nil {
		return err
	}
	answer, err := c.Request("subject", []byte("question"), 5*time.Second)
	if err == nil {
		fmt.Printf("%s\n", answer.Data)
	}
	return err
}
