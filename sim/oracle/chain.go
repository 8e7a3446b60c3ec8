package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	kmsservice "k8s.io/kms/pkg/service"
)

// chainRequest asks what an apiserver with this configuration stores of a resource's object, or reads of a value.
type chainRequest struct {
	header
	// Text of the configuration. Each of its plugins answers with key_id `1` and wraps by appending.
	Text string `json:"text"`
	// Resource is `secrets` or `deployments.apps`.
	Resource string `json:"resource"`
	AAD      string `json:"aad"`
	// Plaintext is written.
	Plaintext *hexBytes `json:"plaintext,omitempty"`
	// Random is what would be drawn for that. Drawn if it is empty.
	Random hexBytes `json:"random,omitempty"`
	// Value is read.
	Value *hexBytes `json:"value,omitempty"`
}

type chainAnswer struct {
	// Value was written.
	Value hexBytes `json:"value,omitempty"`
	// Plaintext was read.
	Plaintext hexBytes `json:"plaintext,omitempty"`
	Stale     bool     `json:"stale,omitempty"`
	Error     *string  `json:"error,omitempty"`
	// Panic is what upstream panics with: an apiserver answers such a request with an internal error.
	Panic *string `json:"panic,omitempty"`
}

func (r chainRequest) answer(folder string) (any, error) {
	file := filepath.Join(folder, "config")
	if err := os.WriteFile(file, []byte(r.Text), 0o600); err != nil {
		return nil, fmt.Errorf("cannot write the file: %w", err)
	}
	configuration, cancel, err := load(file, false, func(context.Context, string, string, time.Duration) (kmsservice.Service, error) {
		return &scripted{script: script{
			Status:  &statusScript{Version: "v2", Healthz: "ok", KeyID: "1"},
			Encrypt: &encryptScript{Ciphertext: []byte("wrapped:"), Wraps: true, KeyID: "1"},
			Decrypt: &decryptScript{Unwraps: true},
		}}, nil
	})
	defer cancel()
	if err != nil {
		return nil, fmt.Errorf("the apiserver does not start: %w", err)
	}
	chain := encryptionconfig.StaticTransformers(configuration.Transformers).TransformerForResource(schema.ParseGroupResource(r.Resource))

	var answer chainAnswer
	switch {
	case r.Plaintext != nil && r.Value == nil:
		left := withRandom(r.Random, func() { answer = r.write(chain) })
		if left != 0 {
			return nil, fmt.Errorf("%d bytes of random were not drawn", left)
		}
	case r.Value != nil && r.Plaintext == nil && len(r.Random) == 0:
		answer = r.read(chain)
	default:
		return nil, errors.New("it has to have either a plaintext or a value")
	}
	return answer, nil
}

func (r chainRequest) write(chain value.Transformer) chainAnswer {
	stored, err := chain.TransformToStorage(context.Background(), *r.Plaintext, value.DefaultContext(r.AAD))
	return chainAnswer{Value: stored, Error: text(err)}
}

func (r chainRequest) read(chain value.Transformer) (answer chainAnswer) {
	defer func() {
		if panicked := recover(); panicked != nil {
			said := fmt.Sprint(panicked)
			answer = chainAnswer{Panic: &said}
		}
	}()
	opened, stale, err := chain.TransformFromStorage(context.Background(), *r.Value, value.DefaultContext(r.AAD))
	return chainAnswer{Plaintext: opened, Stale: stale, Error: text(err)}
}
