package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	kmsservice "k8s.io/kms/pkg/service"
)

// seed is the type of what is written since 1.29.
const seed = int32(kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED)

// object is what is stored beside the data.
type object struct {
	// Type is the number of the encryptedDEKSourceType: 0 for a key, 1 for a seed.
	Type        int32       `json:"type"`
	KeyID       string      `json:"key_id"`
	DEKSource   hexBytes    `json:"dek_source"`
	Annotations annotations `json:"annotations"`
}

func (o object) sourceType() kmstypes.EncryptedDEKSourceType {
	return kmstypes.EncryptedDEKSourceType(o.Type)
}

func (o object) record() *kmstypes.EncryptedObject {
	return &kmstypes.EncryptedObject{
		KeyID:                  o.KeyID,
		EncryptedDEKSource:     o.DEKSource,
		Annotations:            o.Annotations.plain(),
		EncryptedDEKSourceType: o.sourceType(),
	}
}

// transformers are what reads and writes the values of one `kms` entry.
func transformers(provider string, service kmsservice.Service, state kmsv2.StateFunc) value.Transformer {
	return value.NewPrefixTransformers(errors.New("no matching prefix found"), value.PrefixTransformer{
		Transformer: kmsv2.NewEnvelopeTransformer(service, provider, state, "oracle"),
		Prefix:      []byte("k8s:enc:kms:v2:" + provider + ":"),
	})
}

// validateRequest asks whether an object, or an answer of Encrypt, would be accepted.
type validateRequest struct {
	header
	object
	// Data is the object's encryptedData.
	Data hexBytes `json:"data"`
}

type validateAnswer struct {
	// Object is what is wrong with it as an object that is stored or read.
	Object *string `json:"object"`
	// KeyID is what is wrong with its key_id as one that Status answers.
	KeyID *string `json:"key_id"`
	// Encrypt is what is wrong with it as Encrypt's answer: data and type are not looked at.
	Encrypt *string `json:"encrypt"`
	// CacheKey are the bytes by which an accepted answer's seed is found again, before they are hashed.
	CacheKey  hexBytes `json:"cache_key,omitempty"`
	KeyIDHash string   `json:"key_id_hash"`
}

func (r validateRequest) answer() any {
	record := r.record()
	record.EncryptedData = r.Data
	_, invalidKeyID := kmsv2.ValidateKeyID(r.KeyID)
	encrypts := encrypter{kmsservice.EncryptResponse{
		Ciphertext: r.DEKSource, KeyID: r.KeyID, Annotations: r.Annotations.plain(),
	}}
	_, _, cacheKey, err := kmsv2.GenerateTransformer(context.Background(), "uid", encrypts, true)
	return validateAnswer{
		Object:    text(kmsv2.ValidateEncryptedObject(record)),
		KeyID:     text(invalidKeyID),
		Encrypt:   text(err),
		CacheKey:  cacheKey,
		KeyIDHash: kmsv2.GetHashIfNotEmpty(r.KeyID),
	}
}

// sealRequest asks for the value that is stored.
type sealRequest struct {
	header
	object
	Provider string `json:"provider"`
	// Secret is the seed or key.
	Secret hexBytes `json:"secret"`
	// Random is what would be drawn: with a seed info and nonce, with a key the nonce. Drawn if it is empty.
	Random    hexBytes `json:"random"`
	AAD       string   `json:"aad"`
	Plaintext hexBytes `json:"plaintext"`
}

type sealAnswer struct {
	Value hexBytes `json:"value,omitempty"`
	Error *string  `json:"error,omitempty"`
}

func (r sealRequest) answer() (any, error) {
	transformer, err := transformerOf(r.Type, r.Secret)
	if err != nil {
		return sealAnswer{Error: text(err)}, nil
	}
	state := r.state()
	state.Transformer = transformer
	state.CacheKey = []byte("any") // it is for reading
	state.ExpirationTimestamp = time.Now().Add(time.Hour)
	writes := transformers(r.Provider, nil, func() (kmsv2.State, error) { return state, nil })

	var stored []byte
	seal := func() {
		stored, err = writes.TransformToStorage(context.Background(), r.Plaintext, value.DefaultContext(r.AAD))
	}
	if left := withRandom(r.Random, seal); left != 0 {
		return nil, fmt.Errorf("%d bytes of random were not drawn", left)
	}
	return sealAnswer{stored, text(err)}, nil
}

func transformerOf(kind int32, secret []byte) (value.Transformer, error) {
	if kind == seed {
		return aestransformer.NewHKDFExtendedNonceGCMTransformer(secret)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return aestransformer.NewGCMTransformer(block)
}

// withRandom does something with these bytes in place of random ones, if there are any: how many are left.
func withRandom(random []byte, do func()) int {
	if len(random) == 0 {
		do()
		return 0
	}
	genuine := rand.Reader
	given := bytes.NewReader(random)
	// What is drawn beyond them is truly random, so that a seal never fails for it.
	rand.Reader = io.MultiReader(given, genuine)
	defer func() { rand.Reader = genuine }()
	do()
	return given.Len()
}

// openRequest asks for the object in a value.
type openRequest struct {
	header
	Provider string   `json:"provider"`
	Value    hexBytes `json:"value"`
	AAD      string   `json:"aad"`
	// State is what would be written with now.
	State object `json:"state"`
	// Decrypt is what the plugin answers.
	Decrypt decryptScript `json:"decrypt"`
}

type openAnswer struct {
	Plaintext hexBytes `json:"plaintext"`
	Stale     bool     `json:"stale"`
	Error     *string  `json:"error,omitempty"`
	// Calls of the plugin: at most one Decrypt.
	Calls []call `json:"calls"`
}

func (r openRequest) answer() (any, error) {
	plugin := &scripted{script: script{Decrypt: &r.Decrypt}}
	reads := transformers(r.Provider, plugin, func() (kmsv2.State, error) { return r.State.state(), nil })
	opened, stale, err := reads.TransformFromStorage(context.Background(), r.Value, value.DefaultContext(r.AAD))
	return openAnswer{opened, stale, text(err), plugin.taken()}, nil
}
