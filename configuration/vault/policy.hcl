# What kleidi needs of transit, for a key named "kms", and no more. Never grant create on encrypt: the
# server would make a key where there is none.
path "transit/encrypt/kms" {
  capabilities = ["update"]
}
path "transit/decrypt/kms" {
  capabilities = ["update"]
}
# What the key_id is computed from.
path "transit/hmac/kms" {
  capabilities = ["update"]
}
# Only for kleidi check --live, which warns of a key that can be taken away.
path "transit/keys/kms" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
