"""The official module path of constants: those that programs around GetBatch use."""

from aisfast.unsupported import absent

# Units and defaults, in bytes and seconds.
GB = 10**9
GBIT = GB // 8
KIB = 1 << 10
MIB = 1 << 20
DEFAULT_CHUNK_SIZE = 32 * KIB
DEFAULT_COLD_GET_EST_BPS = 10 * GBIT
DEFAULT_COLD_GET_MAX_WAIT = 180
NANOSECONDS_IN_SECOND = 10**9

# Formats.
EXT_TAR = ".tar"
EXT_TGZ = ".tgz"
EXT_TARGZ = ".tar.gz"
EXT_TARLZ4 = ".tar.lz4"
EXT_ZIP = ".zip"

# The environment.
AIS_AUTHN_TOKEN = "AIS_AUTHN_TOKEN"
AIS_CLIENT_CA = "AIS_CLIENT_CA"
AIS_CLIENT_CRT = "AIS_CRT"
AIS_CLIENT_KEY = "AIS_CRT_KEY"
AIS_CONNECT_TIMEOUT = "AIS_CONNECT_TIMEOUT"
AIS_MAX_CONN_POOL = "AIS_MAX_CONN_POOL"
AIS_READ_TIMEOUT = "AIS_READ_TIMEOUT"
AIS_SKIP_VERIFY = "AIS_SKIP_VERIFY"
AIS_SKIP_VERIFY_CRT = "AIS_SKIP_VERIFY_CRT"

# HTTP.
HTTP = "http://"
HTTPS = "https://"
UTF_ENCODING = "utf-8"
JSON_CONTENT_TYPE = "application/json"
MSGPACK_CONTENT_TYPE = "application/msgpack"
HTTP_METHOD_DELETE = "delete"
HTTP_METHOD_GET = "get"
HTTP_METHOD_HEAD = "head"
HTTP_METHOD_PATCH = "patch"
HTTP_METHOD_POST = "post"
HTTP_METHOD_PUT = "put"
HEADER_ACCEPT = "Accept"
HEADER_AUTHORIZATION = "Authorization"
HEADER_CONTENT_LENGTH = "Content-Length"
HEADER_CONTENT_TYPE = "Content-Type"
HEADER_ETAG = "ETag"
HEADER_LAST_MODIFIED = "Last-Modified"
HEADER_LOCATION = "Location"
HEADER_RANGE = "Range"
HEADER_USER_AGENT = "User-Agent"
STATUS_ACCEPTED = 202
STATUS_BAD_REQUEST = 400
STATUS_FORBIDDEN = 403
STATUS_INTERNAL_SERVER_ERROR = 500
STATUS_NO_CONTENT = 204
STATUS_OK = 200
STATUS_PARTIAL_CONTENT = 206
STATUS_REDIRECT_PERM = 301
STATUS_REDIRECT_TMP = 307
STATUS_SERVICE_UNAVAILABLE = 503
STATUS_UNAUTHORIZED = 401

# What an answer's headers say of a bucket or an object.
AIS_ACCESS_TIME = "ais-atime"
AIS_BCK_NAME = "ais-bucket-name"
AIS_BCK_PROVIDER = "ais-bucket-provider"
AIS_CHECKSUM_TYPE = "ais-checksum-type"
AIS_CHECKSUM_VALUE = "ais-checksum-value"
AIS_CHUNKS_COUNT = "ais-chunks-count"
AIS_CHUNKS_MAX_CHUNK_SIZE = "ais-chunks-max-chunk-size"
AIS_CUSTOM_MD = "ais-custom-md"
AIS_EC_DATA = "ais-ec-data"
AIS_EC_GENERATION = "ais-ec-generation"
AIS_EC_PARITY = "ais-ec-parity"
AIS_EC_REPLICATED = "ais-ec-replicated"
AIS_LOCATION = "ais-location"
AIS_MIRROR_COPIES = "ais-mirror-copies"
AIS_MIRROR_PATHS = "ais-mirror-paths"
AIS_OBJ_NAME = "ais-name"
AIS_PRESENT = "ais-present"
AIS_VERSION = "ais-version"
HEADER_BUCKET_PROPS = "Ais-Bucket-Props"
HEADER_BUCKET_SUMM = "Ais-Bucket-Summ"
HEADER_OBJECT_APPEND_HANDLE = "Ais-Append-Handle"
HEADER_PREFIX = "Ais-"
HEADER_XACTION_ID = "Ais-Xaction-Id"

# Paths, queries and actions.
URL_PATH_BUCKETS = "buckets"
URL_PATH_CLUSTER = "cluster"
URL_PATH_DAEMON = "daemon"
URL_PATH_GB = "ml/moss"
URL_PATH_HEALTH = "health"
URL_PATH_OBJECTS = "objects"
QPARAM_ARCHMODE = "archmode"
QPARAM_ARCHPATH = "archpath"
QPARAM_ARCHREGX = "archregx"
QPARAM_BSUMM_REMOTE = "bsumm_remote"
QPARAM_COLOC = "coloc"
QPARAM_FLT_PRESENCE = "presence"
QPARAM_LATEST = "latest-ver"
QPARAM_NAMESPACE = "namespace"
QPARAM_NEW_CUSTOM = "set-new-custom"
QPARAM_OBJ_APPEND = "append_type"
QPARAM_OBJ_APPEND_HANDLE = "append_handle"
QPARAM_PRIMARY_READY_REB = "prr"
QPARAM_PROPS = "props"
QPARAM_PROVIDER = "provider"
QPARAM_UUID = "uuid"
QPARAM_WHAT = "what"
WHAT_CLUSTER_CONFIG = "cluster_config"
WHAT_SMAP = "smap"
ACT_CREATE_BCK = "create-bck"
ACT_DESTROY_BCK = "destroy-bck"
ACT_LIST = "list"
ACT_SUMMARY_BCK = "summary-bck"
PROPS_CHUNKED = "chunked"
PROPS_SIZE = "size"

# GetBatch: fields on the wire, and where what is missing stands.
GB_ARCHPATH = "archpath"
GB_BCK = "bucket"
GB_COLOC = "coloc"
GB_CONTINUE_ERR = "coer"
GB_ERR_MSG = "err_msg"
GB_IN = "in"
GB_LENGTH = "length"
GB_MISSING_FILES_DIR = "__404__"
GB_OBJNAME = "objname"
GB_ONLY_OBJ_NAME = "onob"
GB_OPAQUE = "opaque"
GB_OUT = "out"
GB_OUTPUT_FMT = "mime"
GB_PROVIDER = "provider"
GB_SIZE = "size"
GB_START = "start"
GB_STRM_GET = "strm"
GB_UNAME = "uname"
GB_UUID = "uuid"

__all__ = [name for name in globals() if name.isupper()]
__path__, __getattr__ = absent(__name__)
