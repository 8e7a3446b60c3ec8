// Aes-gcm is a KMS v2 plugin as small as it can be over upstream's server, k8s.io/kms/pkg/service, which most
// plugins in Go use: a server stack that is not kleidi's. For tests; its key lies in a file.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/kms/pkg/service"
)

// plugin has one key; its key_id is the key's hash.
type plugin struct {
	aead  cipher.AEAD
	keyID string
}

func main() {
	socket := flag.String("socket", "", "path of the socket to listen on; it must not exist")
	key := flag.String("key", "", "file with the AES key, 32 bytes; made if it does not exist")
	flag.Parse()
	if err := run(*socket, *key); err != nil {
		fmt.Fprintf(os.Stderr, "aes-gcm: %v\n", err)
		os.Exit(1)
	}
}

func run(socket, file string) error {
	if socket == "" || file == "" {
		return errors.New("-socket and -key are needed")
	}
	plugin, err := open(file)
	if err != nil {
		return err
	}
	server := service.NewGRPCService(socket, 5*time.Second, plugin)
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGINT, syscall.SIGTERM)
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServe() }()
	select {
	case err := <-served:
		return fmt.Errorf("cannot serve on %s: %w", socket, err)
	case <-stopped:
		server.Shutdown()
		return nil
	}
}

func open(file string) (*plugin, error) {
	key, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key) // never fails
		err = os.WriteFile(file, key, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read or make the key: %w", err)
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("the key in %s has %d bytes, not 32", file, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(key)
	return &plugin{aead, hex.EncodeToString(hash[:])}, nil
}

func (p *plugin) Status(context.Context) (*service.StatusResponse, error) {
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: p.keyID}, nil
}

func (p *plugin) Encrypt(_ context.Context, _ string, plaintext []byte) (*service.EncryptResponse, error) {
	return &service.EncryptResponse{
		Ciphertext: p.aead.Seal(nil, nil, plaintext, []byte(p.keyID)),
		KeyID:      p.keyID,
	}, nil
}

func (p *plugin) Decrypt(_ context.Context, _ string, request *service.DecryptRequest) ([]byte, error) {
	if request.KeyID != p.keyID {
		return nil, fmt.Errorf("no key has the key_id %q", request.KeyID)
	}
	if len(request.Annotations) != 0 {
		return nil, errors.New("annotations that were not given out")
	}
	plaintext, err := p.aead.Open(nil, nil, request.Ciphertext, []byte(p.keyID))
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt: %w", err)
	}
	return plaintext, nil
}
