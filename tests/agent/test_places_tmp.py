import os, pytest
from support.agent_env import *
PLACES=["SageMaker/.notebook-ssh/worker.py","SageMaker/.notebook-ssh/reply.json","SageMaker/.notebook-ssh/ngrok.yml","SageMaker/.ngrok/config.yml","SageMaker/.ngrok/ngrok","SageMaker/.ngrok/ngrok.from","SageMaker/.notebook-ssh/editors","SageMaker/.notebook-ssh/worker.py.~", "SageMaker/.notebook-ssh/ngrok.yml.~",".ssh/authorized_keys.~","SageMaker/SSH_INSTRUCTIONS.~","SageMaker/.ngrok/ngrok.tgz","SageMaker/.ngrok/ngrok.new"]
FOLDERS=["SageMaker/.notebook-ssh","SageMaker/.ngrok","SageMaker/ssh",".ssh",".cache",".local"]
def mkdir(p): p.mkdir(parents=True); (p/"full").touch()
def loop(p): p.parent.mkdir(parents=True,exist_ok=True); p.symlink_to(p)
def afile(p): 
    import shutil
    if p.is_dir(): shutil.rmtree(p)
    p.parent.mkdir(parents=True,exist_ok=True); p.write_text("x\n")
def sparse(p):
    p.parent.mkdir(parents=True,exist_ok=True)
    with open(p,"wb") as f: f.truncate(1<<40) if 0 else f.truncate(1<<34)
def mode0(p): mkdir(p) 
def fifo(p): p.parent.mkdir(parents=True,exist_ok=True); os.mkfifo(p)
def zero(p): p.parent.mkdir(parents=True,exist_ok=True); p.symlink_to("/dev/zero")
CASES=[(p,k) for p in PLACES for k in (mkdir,loop,sparse,fifo,zero)]+[(p,k) for p in FOLDERS for k in (afile,loop,fifo)]
@pytest.mark.parametrize(("place","kind"),CASES,ids=lambda x: getattr(x,"__name__",x))
def test_p(notebook,stack,place,kind):
    p=notebook.home/place
    if p.exists() and kind is not afile:
        import shutil; shutil.rmtree(p)
    kind(p)
    stack.reply=make_reply("ngrok",sync_after=1)
    notebook.start()
    import time
    t=time.monotonic()
    while time.monotonic()-t<20:
        r=stack.last_report()
        if r.get("phase")=="connected" or r.get("problem"): break
        time.sleep(0.1)
    if r.get("phase")=="connected":
        while time.monotonic()-t<8 and not r.get("problem"): time.sleep(.1); r=stack.last_report()
    tb="Traceback" in notebook.logs()
    print("RESULT",place,kind.__name__,r.get("phase"),r.get("problem"),"TRACEBACK" if tb else "")
    open("/tmp/agentmx/places.out","a").write(f"{place} {kind.__name__}: {r.get('phase')} {r.get('problem')} {'TRACEBACK' if tb else ''}\n")
