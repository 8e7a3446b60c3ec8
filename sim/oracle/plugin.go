package main

import (
	"context"
	"errors"
	"time"

	kmsservice "k8s.io/kms/pkg/service"
)

// script is what a plugin answers; what is absent in a later one stays as it was.
type script struct {
	Status  *statusScript  `json:"status,omitempty"`
	Encrypt *encryptScript `json:"encrypt,omitempty"`
	Decrypt *decryptScript `json:"decrypt,omitempty"`
}

type statusScript struct {
	Version string `json:"version"`
	Healthz string `json:"healthz"`
	KeyID   string `json:"key_id"`
	// Error is answered in place of all others.
	Error *string `json:"error,omitempty"`
	// TakesMS is how long it takes.
	TakesMS int64 `json:"takes_ms,omitempty"`
}

type encryptScript struct {
	Ciphertext hexBytes `json:"ciphertext"`
	// Wraps appends the plaintext to the ciphertext.
	Wraps       bool        `json:"wraps,omitempty"`
	KeyID       string      `json:"key_id"`
	Annotations annotations `json:"annotations"`
	Error       *string     `json:"error,omitempty"`
	TakesMS     int64       `json:"takes_ms,omitempty"`
}

type decryptScript struct {
	Plaintext hexBytes `json:"plaintext"`
	// Unwraps answers with the last 32 bytes of the ciphertext.
	Unwraps bool    `json:"unwraps,omitempty"`
	Error   *string `json:"error,omitempty"`
	TakesMS int64   `json:"takes_ms,omitempty"`
}

// call is one call of a plugin, and its answer. Only what belongs to its method is there.
type call struct {
	Method string `json:"method"`
	// AtMS is when it began, since the apiserver's start.
	AtMS int64 `json:"at_ms"`
	// TookMS is how long the plugin took.
	TookMS int64  `json:"took_ms,omitempty"`
	UID    string `json:"uid,omitempty"`

	Version     string      `json:"version,omitempty"`
	Healthz     string      `json:"healthz,omitempty"`
	KeyID       string      `json:"key_id,omitempty"`
	Plaintext   hexBytes    `json:"plaintext,omitempty"`
	Ciphertext  hexBytes    `json:"ciphertext,omitempty"`
	Annotations annotations `json:"annotations,omitempty"`
	// Error is what it answered in place of all that.
	Error *string `json:"error,omitempty"`
}

// scripted is a plugin that answers what it is told and remembers its calls.
type scripted struct {
	script script
	began  time.Time
	calls  []call
}

var _ kmsservice.Service = (*scripted)(nil)

// becomes changes what it answers.
func (s *scripted) becomes(change script) {
	if change.Status != nil {
		s.script.Status = change.Status
	}
	if change.Encrypt != nil {
		s.script.Encrypt = change.Encrypt
	}
	if change.Decrypt != nil {
		s.script.Decrypt = change.Decrypt
	}
}

// taken are the calls since it was last asked.
func (s *scripted) taken() []call {
	calls := s.calls
	s.calls = nil
	if calls == nil {
		calls = []call{}
	}
	return calls
}

func (s *scripted) remember(c call, began time.Time) {
	if s.began.IsZero() {
		s.began = began
	}
	c.AtMS = began.Sub(s.began).Milliseconds()
	s.calls = append(s.calls, c)
}

func takes(ms int64) {
	if ms != 0 {
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
}

func failure(said *string) error {
	if said == nil {
		return nil
	}
	return errors.New(*said)
}

func (s *scripted) Status(context.Context) (*kmsservice.StatusResponse, error) {
	began, does := time.Now(), s.script.Status
	takes(does.TakesMS)
	s.remember(call{
		Method: "Status", TookMS: does.TakesMS,
		Version: does.Version, Healthz: does.Healthz, KeyID: does.KeyID, Error: does.Error,
	}, began)
	if err := failure(does.Error); err != nil {
		return nil, err
	}
	return &kmsservice.StatusResponse{Version: does.Version, Healthz: does.Healthz, KeyID: does.KeyID}, nil
}

func (s *scripted) Encrypt(_ context.Context, uid string, plaintext []byte) (*kmsservice.EncryptResponse, error) {
	began, does := time.Now(), s.script.Encrypt
	takes(does.TakesMS)
	ciphertext := append([]byte{}, does.Ciphertext...)
	if does.Wraps {
		ciphertext = append(ciphertext, plaintext...)
	}
	s.remember(call{
		Method: "Encrypt", TookMS: does.TakesMS, UID: uid, Plaintext: plaintext,
		Ciphertext: ciphertext, KeyID: does.KeyID, Annotations: does.Annotations, Error: does.Error,
	}, began)
	if err := failure(does.Error); err != nil {
		return nil, err
	}
	return &kmsservice.EncryptResponse{
		Ciphertext: ciphertext, KeyID: does.KeyID, Annotations: does.Annotations.plain(),
	}, nil
}

func (s *scripted) Decrypt(_ context.Context, uid string, request *kmsservice.DecryptRequest) ([]byte, error) {
	began, does := time.Now(), s.script.Decrypt
	takes(does.TakesMS)
	plaintext := []byte(does.Plaintext)
	if does.Unwraps {
		plaintext = request.Ciphertext[max(0, len(request.Ciphertext)-32):]
	}
	s.remember(call{
		Method: "Decrypt", TookMS: does.TakesMS, UID: uid, Plaintext: plaintext, Ciphertext: request.Ciphertext,
		KeyID: request.KeyID, Annotations: toAnnotations(request.Annotations), Error: does.Error,
	}, began)
	return plaintext, failure(does.Error)
}

// encrypter answers Encrypt alone.
type encrypter struct{ response kmsservice.EncryptResponse }

func (encrypter) Status(context.Context) (*kmsservice.StatusResponse, error) {
	return nil, errors.New("not asked for")
}

func (e encrypter) Encrypt(context.Context, string, []byte) (*kmsservice.EncryptResponse, error) {
	return &e.response, nil
}

func (encrypter) Decrypt(context.Context, string, *kmsservice.DecryptRequest) ([]byte, error) {
	return nil, errors.New("not asked for")
}

// healthy is a plugin with which every start succeeds.
type healthy struct{ encrypter }

func (healthy) Status(context.Context) (*kmsservice.StatusResponse, error) {
	return &kmsservice.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "1"}, nil
}

func (healthy) Encrypt(context.Context, string, []byte) (*kmsservice.EncryptResponse, error) {
	return &kmsservice.EncryptResponse{Ciphertext: []byte("wrapped"), KeyID: "1"}, nil
}
