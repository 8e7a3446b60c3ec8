// Oracle answers how kube-apiserver's own packages behave: what they accept as a configuration, what they
// store, what they read, and what their health checks ask of a plugin. One JSON request a line on standard
// input, one JSON answer a line on standard output; README.md describes them.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"k8s.io/klog/v2"
)

func main() {
	// Upstream's times are printed in the local zone.
	time.Local = time.UTC
	// Its log goes nowhere: every error is in an answer.
	klog.SetLogger(klog.Logger{})

	// Time that stands still, testing/synctest, is to be had in a test only; so this program is one.
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{
		Name: "oracle",
		F: func(t *testing.T) {
			err := serve(t, os.Stdin, os.Stdout)
			if err != nil {
				fmt.Fprintf(os.Stderr, "oracle: %v\n", err)
				os.Exit(1)
			}
			os.Exit(0) // before the testing package says PASS among the answers
		},
	}}, nil, nil)
}

// serve answers until there are no more requests.
func serve(t *testing.T, requests io.Reader, answers io.Writer) error {
	folder, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return fmt.Errorf("cannot make a folder for configuration files: %w", err)
	}
	defer os.RemoveAll(folder)

	in := bufio.NewReaderSize(requests, 1<<20)
	out := bufio.NewWriter(answers)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("cannot read a request: %w", err)
		}
		if _, err := out.Write(append(answer(t, folder, line), '\n')); err != nil {
			return fmt.Errorf("cannot write an answer: %w", err)
		}
		// Several requests may be on their way: one flush for all that have arrived.
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return fmt.Errorf("cannot write an answer: %w", err)
			}
		}
	}
}
