package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmsservice "k8s.io/kms/pkg/service"
)

// configRequest asks whether a file would be accepted as --encryption-provider-config.
type configRequest struct {
	header
	// Text of the file.
	Text string `json:"text"`
	// Reload is --encryption-provider-config-automatic-reload.
	Reload bool `json:"reload"`
}

type configAnswer struct {
	// OK says that an apiserver starts with this file.
	OK bool `json:"ok"`
	// Decode is why it is no EncryptionConfiguration.
	Decode *string `json:"decode,omitempty"`
	// Errors are what validation finds, in its order.
	Errors []fieldError `json:"errors,omitempty"`
	// Load is all that the apiserver says; the file is called FILE.
	Load *string `json:"load,omitempty"`
}

type fieldError struct {
	Field  string `json:"field"`
	Type   string `json:"type"`
	Detail string `json:"detail"`
	// Text is the whole message, with the value in it.
	Text string `json:"text"`
}

// encryptionCodecs decode as the encryptionconfig package does; its own are not exported.
var encryptionCodecs = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	for _, add := range configTypes {
		utilruntime.Must(add(scheme))
	}
	return serializer.NewCodecFactory(scheme, decoderOptions...)
}()

func (r configRequest) answer(folder string) (any, error) {
	file := filepath.Join(folder, "config")
	if err := os.WriteFile(file, []byte(r.Text), 0o600); err != nil {
		return nil, fmt.Errorf("cannot write the file: %w", err)
	}
	_, cancel, err := load(file, r.Reload, func(ctx context.Context, endpoint, name string, timeout time.Duration) (kmsservice.Service, error) {
		// The genuine client refuses some endpoints that validation accepts. It is not used for more.
		if _, err := kmsv2.NewGRPCService(ctx, endpoint, name, timeout); err != nil {
			return nil, err
		}
		return healthy{}, nil
	})
	cancel()
	answer := configAnswer{OK: err == nil}
	if err != nil {
		said := withoutAddresses(strings.ReplaceAll(err.Error(), file, "FILE"))
		answer.Load = &said
	}
	if r.Text == "" {
		return answer, nil // refused before it is decoded
	}

	// The same once more, step by step, for what validation found.
	parsing := error(nil)
	config, kind, err := encryptionCodecs.UniversalDecoder().Decode([]byte(r.Text), nil, nil)
	configuration, ok := config.(*encryptionConfiguration)
	switch {
	case err != nil:
		answer.Decode = text(err)
		parsing = fmt.Errorf("error decoding encryption provider configuration file \"FILE\": %w", err)
	case !ok:
		parsing = fmt.Errorf("got unexpected config type: %v", kind)
		answer.Decode = text(parsing)
	default:
		found := validateConfiguration(configuration, r.Reload)
		answer.Errors = fieldErrors(found)
		if aggregate := found.ToAggregate(); aggregate != nil {
			parsing = aggregate
		}
	}
	return answer, agree(answer, parsing)
}

// agree holds the second way, which has the fields, to the first, which is the apiserver's.
func agree(answer configAnswer, parsing error) error {
	const prefix = "error while parsing file: "
	var said string
	if answer.Load != nil && strings.HasPrefix(*answer.Load, prefix) {
		said = strings.TrimPrefix(*answer.Load, prefix)
	}
	var wanted string
	if parsing != nil {
		wanted = withoutAddresses(parsing.Error())
	}
	if said != wanted {
		return fmt.Errorf("the oracle does not decode as upstream: %q, not %q", wanted, said)
	}
	return nil
}

// pointer in a value that is printed as Go's source, in 1.31 and before.
var pointer = regexp.MustCompile(`\(0x[0-9a-f]+\)`)

// withoutAddresses makes all of them the same: they are those of this process.
func withoutAddresses(text string) string {
	return pointer.ReplaceAllString(text, "(0xc000000000)")
}

func fieldErrors(list field.ErrorList) []fieldError {
	errors := make([]fieldError, 0, len(list))
	for _, found := range list {
		errors = append(errors, fieldError{
			Field:  found.Field,
			Type:   string(found.Type),
			Detail: found.Detail,
			Text:   withoutAddresses(found.Error()),
		})
	}
	return errors
}

// load is an apiserver's start with this file; what it starts ends with cancel.
func load(file string, reload bool, plugin func(context.Context, string, string, time.Duration) (kmsservice.Service, error)) (*encryptionconfig.EncryptionConfiguration, context.CancelFunc, error) {
	genuine := encryptionconfig.EnvelopeKMSv2ServiceFactory
	encryptionconfig.EnvelopeKMSv2ServiceFactory = plugin
	defer func() { encryptionconfig.EnvelopeKMSv2ServiceFactory = genuine }()
	ctx, cancel := context.WithCancel(context.Background())
	configuration, err := encryptionconfig.LoadEncryptionConfig(ctx, file, reload, "oracle")
	return configuration, cancel, err
}
