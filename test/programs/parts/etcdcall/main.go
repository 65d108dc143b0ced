// SPDX-License-Identifier: Apache-2.0

// Command etcdcall is a client of etcd: `etcdcall ADDRESS` writes, reads and watches a key.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := run(ctx, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address string) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, Context: ctx, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Delete(ctx, "key"); err != nil {
		return err
	}
	events := c.Watch(clientv3.WithRequireLeader(ctx), "key", clientv3.WithCreatedNotify())
	<-events
	if _, err := c.Put(ctx, "key", "value"); err != nil {
		return err
	}
	for _, event := range (<-events).Events {
		fmt.Printf("%s %s=%s\n", event.Type, event.Kv.Key, event.Kv.Value)
	}
	got, err := c.Get(ctx, "key")
	if err == nil {
		fmt.Println(got.Count, "found")
	}
	return err
}
