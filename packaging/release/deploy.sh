#!/bin/sh
# Deploys notebook-ssh into your AWS account, from this folder: no checkout, no build, no network but AWS.
# `./deploy.sh --help` says how.
set -eu

usage() {
    cat <<'TEXT'
usage: ./deploy.sh --bucket NAME [option ...] [Parameter=Value ...]

Uploads the code to your own bucket and deploys the stack with the AWS command line. Once more, it updates the stack;
with nothing new, it changes nothing.

  --bucket NAME      where the code goes: a bucket of your account, in the stack's region
  --create-bucket    make that bucket when it is not there: private, encrypted, over TLS alone
  --stack-name NAME  the stack (notebook-ssh)
  --region REGION    the region (what the AWS command line is set to)
  --profile PROFILE  the AWS profile
  --dry-run          check everything, say what would be done, and do none of it
  --help             this text

Parameters are those of template.yaml, for example TagKey=ssh or AlarmEmail=me@example.com. One that is not named keeps
its value, or at first its default.
TEXT
}

fail() {
    printf 'deploy: %s\n' "$*" >&2
    exit 1
}

# What the AWS command line said, in one line: the error, without warnings before it and hints after it.
said() {
    grep -iE 'error|unable|failed|could not|denied|expired' "$scratch/said" | head -n 1 | grep . || tail -n 1 "$scratch/said"
}

bucket='' create='' stack=notebook-ssh dry=''
while [ $# -gt 0 ]; do
    case $1 in
    --bucket | --stack-name | --region | --profile)
        [ $# -gt 1 ] && [ -n "$2" ] || fail "$1 needs a value; ./deploy.sh --help says what"
        case $1 in
        --bucket) bucket=$2 ;;
        --stack-name) stack=$2 ;;
        --region) AWS_REGION=$2 AWS_DEFAULT_REGION=$2 ;;
        --profile) AWS_PROFILE=$2 && export AWS_PROFILE ;;
        esac
        shift 2
        ;;
    --create-bucket) create=yes && shift ;;
    --dry-run) dry=yes && shift ;;
    --help | -h) usage && exit 0 ;;
    -*) fail "there is no option $1; ./deploy.sh --help lists them" ;;
    *) break ;;
    esac
done

cd "$(dirname "$0")" || exit
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
AWS_PAGER='' # version 2 would wait in a pager
export AWS_PAGER

# --- Is everything here as it was released, and can it be deployed?
if command -v sha256sum >/dev/null; then
    checked=$(sha256sum -c SHA256SUMS 2>&1) || fail "this folder is not as it was released; unpack the zip again:
$(printf '%s\n' "$checked" | grep -v ': OK$')"
elif command -v shasum >/dev/null; then
    checked=$(shasum -a 256 -c SHA256SUMS 2>&1) || fail "this folder is not as it was released; unpack the zip again:
$(printf '%s\n' "$checked" | grep -v ': OK$')"
else
    fail "neither sha256sum nor shasum is here to check the files with; install one (coreutils)"
fi
parameters=$(awk '/^[^ #]/ { on = /^Parameters:/ } on && /^  [A-Za-z0-9]+:/ { sub(":.*", ""); print $1 }' template.yaml)
for word in "$@"; do
    case $word in
    *=*) ;;
    *) fail "$word is neither an option nor of the form Parameter=Value; options come first" ;;
    esac
    printf '%s\n' "$parameters" | grep -qx -- "${word%%=*}" ||
        fail "the stack has no parameter ${word%%=*}; it has: $(printf '%s' "$parameters" | tr '\n' ' ')"
done
[ -n "$bucket" ] || fail "name the bucket for the code with --bucket; --create-bucket makes it when it is not there"
command -v aws >/dev/null || fail "the AWS command line (aws) is not installed; https://aws.amazon.com/cli says how"
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region 2>/dev/null || true)}}
[ -n "$region" ] || fail "set --region, or the region of the AWS command line (aws configure)"
AWS_REGION=$region AWS_DEFAULT_REGION=$region # version 1 reads the second alone
export AWS_REGION AWS_DEFAULT_REGION

identity=$(aws sts get-caller-identity --query '[Account,Arn]' --output text 2>"$scratch/said") ||
    fail "AWS does not know who you are (aws configure, aws sso login, or --profile): $(said)"
account=$(printf '%s' "$identity" | cut -f 1)
partition=$(printf '%s' "$identity" | cut -f 2 | cut -d : -f 2)

# --- The bucket. It must be this account's: whoever owns it could put other code into it.
make_bucket=''
if ! aws s3api head-bucket --bucket "$bucket" --expected-bucket-owner "$account" >/dev/null 2>"$scratch/said"; then
    case $(said) in
    *'(404)'*)
        [ -n "$create" ] || fail "there is no bucket $bucket; name another, or make it with --create-bucket"
        make_bucket=yes
        ;;
    *'(403)'*) fail "bucket $bucket is another account's, or you may not use it (s3:ListBucket); name another" ;;
    *) fail "bucket $bucket cannot be used: $(said)" ;;
    esac
else
    place=$(aws s3api get-bucket-location --bucket "$bucket" --expected-bucket-owner "$account" \
        --query LocationConstraint --output text 2>"$scratch/said") || fail "where bucket $bucket is cannot be read: $(said)"
    case $place in
    None | null | '') place=us-east-1 ;; # S3 has no name for its first region
    EU) place=eu-west-1 ;;
    esac
    [ "$place" = "$region" ] ||
        fail "bucket $bucket is in $place, and Lambda takes code only from its own region, $region; name another"
fi

private='BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true'
encrypted='{"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}'
tls_alone='{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*",
  "Resource": ["arn:'$partition':s3:::'$bucket'", "arn:'$partition':s3:::'$bucket'/*"],
  "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}'

create_bucket() {
    if [ "$region" = us-east-1 ]; then
        aws s3api create-bucket --bucket "$bucket"
    else
        aws s3api create-bucket --bucket "$bucket" --create-bucket-configuration "LocationConstraint=$region"
    fi
}

protect_bucket() {
    aws s3api put-public-access-block --bucket "$bucket" --public-access-block-configuration "$private" &&
        aws s3api put-bucket-encryption --bucket "$bucket" --server-side-encryption-configuration "$encrypted" &&
        aws s3api put-bucket-policy --bucket "$bucket" --policy "$tls_alone"
}

if [ -n "$dry" ]; then
    echo "Nothing is done. With account $account, region $region, it would:"
    [ -z "$make_bucket" ] || echo "  make the bucket $bucket, private and encrypted"
    echo "  upload code/*.zip and the template to s3://$bucket/notebook-ssh, what is not there already"
    echo "  deploy the stack $stack${1:+ with $*}"
    exit 0
fi

if [ -n "$make_bucket" ]; then
    echo "Making the bucket $bucket ..."
    create_bucket >/dev/null 2>"$scratch/said" || fail "bucket $bucket cannot be made: $(said)"
    if ! protect_bucket >/dev/null 2>"$scratch/said"; then
        aws s3api delete-bucket --bucket "$bucket" 2>/dev/null || true # else the next run would take it as it is
        fail "bucket $bucket could not be made private, and is taken away again: $(said)"
    fi
fi

# --- Upload and deploy.
echo "Uploading the code to s3://$bucket/notebook-ssh ..."
aws cloudformation package --template-file template.yaml --s3-bucket "$bucket" --s3-prefix notebook-ssh \
    --output-template-file "$scratch/template.yaml" >/dev/null 2>"$scratch/said" ||
    fail "the code cannot be uploaded to bucket $bucket (it takes s3:PutObject and s3:GetObject there): $(said)"

echo "Deploying the stack $stack in account $account, region $region ..."
[ $# -eq 0 ] || set -- --parameter-overrides "$@"
aws cloudformation deploy --template-file "$scratch/template.yaml" --stack-name "$stack" \
    --s3-bucket "$bucket" --s3-prefix notebook-ssh --capabilities CAPABILITY_IAM --no-fail-on-empty-changeset \
    --tags product=notebook-ssh "$@" 2>"$scratch/said" || {
    # The reason is in the stack's events, newest first: those that failed by themselves.
    # shellcheck disable=SC2016 # JMESPath's literals
    aws cloudformation describe-stack-events --stack-name "$stack" --output text --query \
        'StackEvents[?ends_with(ResourceStatus, `"_FAILED"`) && !contains(not_null(ResourceStatusReason, `""`), `"cancelled"`)]
        | [:3].[LogicalResourceId, ResourceStatusReason]' >&2 2>/dev/null || true
    fail "the stack $stack is not deployed: $(said)"
}

# --- What there is now, and what comes next.
# shellcheck disable=SC2016 # JMESPath's literals
aws cloudformation describe-stacks --stack-name "$stack" --output text --query \
    '[Stacks[0].Parameters[?ParameterKey==`"TagKey"`].[ParameterKey,ParameterValue],
      Stacks[0].Outputs[].[OutputKey,OutputValue]][]' >"$scratch/stack" 2>"$scratch/said" ||
    fail "the stack $stack is deployed, but its outputs cannot be read: $(said)"
tag=$(sed -n '1s/^TagKey[[:space:]]*//p' "$scratch/stack")
echo
sed 1d "$scratch/stack"
cat <<TEXT

What comes next:
  1. for $tag=ngrok, store its token: run the line after PutToken above
  2. tag a notebook:
     aws sagemaker add-tags --tags Key=$tag,Value=ngrok Key=$tag-restart,Value=now --region $region \\
       --resource-arn arn:${partition}:sagemaker:${region}:${account}:notebook-instance/NAME
  3. on your laptop: pipx install $(echo ./*.whl), then:
     notebook-ssh setup --stack $stack --region $region && ssh NAME
TEXT
