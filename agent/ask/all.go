// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"context"
	"errors"
	"sync"
)

// State is what became of a question.
type State string

// The states.
const (
	Answered   State = "answered"
	NotRunning State = "no agent"
	NoAnswer   State = "no answer"
)

// Result is what became of a question to one node's agent.
type Result[T any] struct {
	Node  string `json:"node"`
	State State  `json:"state"`
	// Error is why there is no answer.
	Error  string `json:"error,omitempty"`
	Answer *T     `json:"answer,omitempty"`
	Err    error  `json:"-"`
}

// atOnce is how many agents are asked at a time.
const atOnce = 32

// All asks every agent at once and returns the results in the order of agents.
func All[T any](ctx context.Context, agents []Agent, question func(context.Context, Agent) (T, error)) []Result[T] {
	results := make([]Result[T], len(agents))
	var running sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i, a := range agents {
		running.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			results[i] = resultOf(question(ctx, a))
			results[i].Node = a.Node
		})
	}
	running.Wait()
	return results
}

func resultOf[T any](answer T, err error) Result[T] {
	switch {
	case err == nil:
		return Result[T]{State: Answered, Answer: &answer}
	case errors.Is(err, ErrNotRunning):
		return Result[T]{State: NotRunning, Error: err.Error(), Err: err}
	}
	return Result[T]{State: NoAnswer, Error: err.Error(), Err: err}
}
