package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"testing"
)

// hexBytes are bytes, in JSON as hexadecimal digits.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) {
	return []byte(hex.EncodeToString(b)), nil
}

func (b *hexBytes) UnmarshalText(text []byte) error {
	decoded, err := hex.DecodeString(string(text))
	*b = decoded
	return err
}

// annotations as they are in requests and answers.
type annotations map[string]hexBytes

func (a annotations) plain() map[string][]byte {
	if a == nil {
		return nil
	}
	plain := make(map[string][]byte, len(a))
	for name, value := range a {
		plain[name] = value
	}
	return plain
}

func toAnnotations(plain map[string][]byte) annotations {
	a := make(annotations, len(plain))
	for name, value := range plain {
		a[name] = value
	}
	return a
}

// fault says that a request could not be put to upstream: the asker's or the oracle's, never upstream's verdict.
type fault struct {
	Fault string `json:"fault"`
}

// answer is one request's answer, a line without its end.
func answer(t *testing.T, folder string, line []byte) []byte {
	result, err := answered(t, folder, line)
	if err != nil {
		result = fault{err.Error()}
	}
	encoded, err := json.Marshal(result)
	if err != nil {
		encoded, _ = json.Marshal(fault{"cannot write the answer: " + err.Error()})
	}
	return encoded
}

func answered(t *testing.T, folder string, line []byte) (any, error) {
	var kind struct {
		Do string `json:"do"`
	}
	if err := json.Unmarshal(line, &kind); err != nil {
		return nil, fmt.Errorf("the request is no JSON object: %w", err)
	}
	switch kind.Do {
	case "version":
		return version(), nil
	case "config":
		return ask(line, func(request configRequest) (any, error) { return request.answer(folder) })
	case "validate":
		return ask(line, func(request validateRequest) (any, error) { return request.answer(), nil })
	case "seal":
		return ask(line, func(request sealRequest) (any, error) { return request.answer() })
	case "open":
		return ask(line, func(request openRequest) (any, error) { return request.answer() })
	case "chain":
		return ask(line, func(request chainRequest) (any, error) { return request.answer(folder) })
	case "probe":
		return ask(line, func(request probeRequest) (any, error) { return request.answer(t, folder) })
	default:
		return nil, fmt.Errorf("no request is called %q", kind.Do)
	}
}

// header is what every request has.
type header struct {
	Do string `json:"do"`
}

// ask reads a request strictly, so that a misspelt field is no silent default.
func ask[Request any](line []byte, answer func(Request) (any, error)) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	var request Request
	if err := decoder.Decode(&request); err != nil {
		return nil, fmt.Errorf("the request is not understood: %w", err)
	}
	return answer(request)
}

type versionAnswer struct {
	// Apiserver is the version of k8s.io/apiserver that answers.
	Apiserver string `json:"apiserver"`
	Go        string `json:"go"`
}

func version() versionAnswer {
	answer := versionAnswer{}
	if info, ok := debug.ReadBuildInfo(); ok {
		answer.Go = info.GoVersion
		for _, module := range info.Deps {
			if module.Path == "k8s.io/apiserver" {
				answer.Apiserver = module.Version
			}
		}
	}
	return answer
}

// text is an error's, or nothing.
func text(err error) *string {
	if err == nil {
		return nil
	}
	said := err.Error()
	return &said
}
