package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	kmsservice "k8s.io/kms/pkg/service"
)

// probeRequest asks for the story of an apiserver with one `kms` entry. Its time goes on only where the
// story says so; it begins at 2000-01-01T00:00:00Z.
type probeRequest struct {
	header
	// Name of the entry.
	Name string `json:"name"`
	// Background keeps the apiserver's own polling; else only the story's checks are made. A plugin that
	// takes its time is not possible with it: a poll that waits for another would stop the clock.
	Background bool `json:"background"`
	// Plugin is what it answers at the start.
	Plugin script `json:"plugin"`
	Steps  []step `json:"steps"`
}

// step is one of these.
type step struct {
	// Plugin changes what it answers.
	Plugin *script `json:"plugin,omitempty"`
	// WaitMS lets time go by.
	WaitMS *int64 `json:"wait_ms,omitempty"`
	// Check asks for health, as a request of /healthz does.
	Check *struct{} `json:"check,omitempty"`
	// Write stores an object.
	Write *struct {
		AAD       string   `json:"aad"`
		Plaintext hexBytes `json:"plaintext"`
	} `json:"write,omitempty"`
	// Read reads a value.
	Read *struct {
		AAD string `json:"aad"`
		// Value is read, or, if there is none, what the step of this index wrote.
		Value hexBytes `json:"value"`
		Of    int      `json:"of"`
	} `json:"read,omitempty"`
	// Restart stops the apiserver and starts it again.
	Restart *struct{} `json:"restart,omitempty"`
}

type probeAnswer struct {
	// Start are the calls of the apiserver's start.
	Start outcome `json:"start"`
	// Steps are what came of each.
	Steps []outcome `json:"steps"`
}

// outcome is what came of a step.
type outcome struct {
	// AtMS is when it was over, since the start.
	AtMS  int64  `json:"at_ms"`
	Calls []call `json:"calls"`
	// Error is upstream's, of a check, a write or a read.
	Error *string `json:"error,omitempty"`
	// Value was written.
	Value hexBytes `json:"value,omitempty"`
	// Plaintext was read.
	Plaintext hexBytes `json:"plaintext,omitempty"`
	Stale     bool     `json:"stale,omitempty"`
}

func (r probeRequest) answer(t *testing.T, folder string) (any, error) {
	if r.Plugin.Status == nil || r.Plugin.Encrypt == nil || r.Plugin.Decrypt == nil {
		return nil, fmt.Errorf("the plugin has to answer Status, Encrypt and Decrypt from the start")
	}
	file := filepath.Join(folder, "probe")
	if err := writeConfig(file, r.Name); err != nil {
		return nil, err
	}
	var answer probeAnswer
	var err error
	synctest.Test(t, func(*testing.T) {
		world := &world{file: file, background: r.Background, plugin: &scripted{began: time.Now()}, began: time.Now()}
		world.plugin.becomes(r.Plugin)
		answer, err = world.story(r.Steps)
	})
	return answer, err
}

func writeConfig(file, name string) error {
	config, err := json.Marshal(map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "EncryptionConfiguration",
		"resources": []any{map[string]any{
			"resources": []string{"secrets"},
			"providers": []any{map[string]any{"kms": map[string]any{
				"apiVersion": "v2", "name": name, "endpoint": "unix:///oracle.sock",
			}}},
		}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, config, 0o600)
}

// world is one apiserver and its plugin.
type world struct {
	file       string
	background bool
	plugin     *scripted
	began      time.Time
	apiserver  *encryptionconfig.EncryptionConfiguration
	stop       context.CancelFunc
}

func (w *world) story(steps []step) (answer probeAnswer, err error) {
	defer func() {
		if w.stop != nil {
			w.stop()
		}
	}()
	if err := w.start(); err != nil {
		return answer, err
	}
	answer = probeAnswer{Start: w.over(outcome{}), Steps: make([]outcome, 0, len(steps))}
	for at, step := range steps {
		came, err := w.take(step, answer.Steps)
		if err != nil {
			return answer, fmt.Errorf("step %d: %w", at, err)
		}
		answer.Steps = append(answer.Steps, w.over(came))
	}
	return answer, nil
}

// over completes an outcome once all that its step caused has been done.
func (w *world) over(came outcome) outcome {
	synctest.Wait()
	came.AtMS = time.Since(w.began).Milliseconds()
	came.Calls = w.plugin.taken()
	return came
}

func (w *world) start() (err error) {
	w.apiserver, w.stop, err = load(w.file, false, func(context.Context, string, string, time.Duration) (kmsservice.Service, error) {
		return w.plugin, nil
	})
	if err != nil {
		return fmt.Errorf("the apiserver does not start: %w", err)
	}
	if !w.background {
		w.stop()
	}
	return nil
}

func (w *world) take(step step, before []outcome) (outcome, error) {
	switch {
	case step.Plugin != nil:
		w.plugin.becomes(*step.Plugin)
		return outcome{}, nil
	case step.WaitMS != nil:
		time.Sleep(time.Duration(*step.WaitMS) * time.Millisecond)
		return outcome{}, nil
	case step.Check != nil:
		request, err := http.NewRequest(http.MethodGet, "/healthz/kms-providers", nil)
		if err != nil {
			return outcome{}, err
		}
		return outcome{Error: text(w.apiserver.HealthChecks[0].Check(request))}, nil
	case step.Write != nil:
		stored, err := w.secrets().TransformToStorage(context.Background(), step.Write.Plaintext, value.DefaultContext(step.Write.AAD))
		return outcome{Value: stored, Error: text(err)}, nil
	case step.Read != nil:
		stored := []byte(step.Read.Value)
		if len(stored) == 0 {
			if step.Read.Of < 0 || step.Read.Of >= len(before) {
				return outcome{}, fmt.Errorf("there is no step %d to read from", step.Read.Of)
			}
			stored = before[step.Read.Of].Value
		}
		plaintext, stale, err := w.secrets().TransformFromStorage(context.Background(), stored, value.DefaultContext(step.Read.AAD))
		return outcome{Plaintext: plaintext, Stale: stale, Error: text(err)}, nil
	case step.Restart != nil:
		w.stop()
		synctest.Wait()
		return outcome{}, w.start()
	default:
		return outcome{}, fmt.Errorf("it says nothing")
	}
}

func (w *world) secrets() value.Transformer {
	return w.apiserver.Transformers[schema.GroupResource{Resource: "secrets"}]
}
